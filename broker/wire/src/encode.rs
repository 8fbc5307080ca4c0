//! Encoding of whole frames: length, header, body.
//!
//! Promise: record batches inside a body are shared, not copied ([`OutFrame`] is a list of segments
//! that goes out in one writev).

use crate::header::request_header_version;
use crate::kafka::error::ProtoError;
use crate::kafka::messages::{RequestHeader, ResponseHeader};
use crate::kafka::protocol::buf::{ByteBufMut, SegmentedBuf};
use crate::kafka::protocol::{Encodable, HeaderVersion, Request, StrBytes};
use bytes::{BufMut, Bytes};

/// A frame ready to be written: a `bytes::Buf` of segments, length prefix included.
pub type OutFrame = SegmentedBuf;

/// Why a message cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("cannot encode {message} version {version}: {source}")]
    Body {
        message: &'static str,
        version: i16,
        source: ProtoError,
    },
    #[error("a frame of {0} bytes is longer than Kafka's length prefix can say")]
    TooLong(usize),
}

fn begin() -> OutFrame {
    let mut out = SegmentedBuf::new();
    out.put_i32(0);
    out
}

fn finish(mut out: OutFrame) -> Result<OutFrame, EncodeError> {
    let length = out.offset() - 4;
    let prefix = i32::try_from(length).map_err(|_| EncodeError::TooLong(length))?;
    out.patch_i32(0, prefix)
        .map_err(|_| EncodeError::TooLong(length))?;
    Ok(out)
}

fn named<T>(version: i16) -> impl Fn(ProtoError) -> EncodeError {
    move |source| EncodeError::Body {
        message: std::any::type_name::<T>(),
        version,
        source,
    }
}

/// The frame that answers request `correlation_id` with `body`.
pub fn encode_reply<R: Encodable + HeaderVersion>(
    correlation_id: i32,
    body: &R,
    version: i16,
) -> Result<OutFrame, EncodeError> {
    let mut out = begin();
    let mut header = ResponseHeader::default();
    header.correlation_id = correlation_id;
    header
        .encode(&mut out, R::header_version(version))
        .map_err(named::<R>(version))?;
    body.encode(&mut out, version)
        .map_err(named::<R>(version))?;
    finish(out)
}

/// The frame that answers `correlation_id` with bytes that are no Kafka message (header version 0).
pub fn encode_raw_reply(correlation_id: i32, body: Bytes) -> Result<OutFrame, EncodeError> {
    let mut out = begin();
    out.put_i32(correlation_id);
    out.put_shared_bytes(body);
    finish(out)
}

/// The frame of a request.
pub fn encode_request<R: Request>(
    correlation_id: i32,
    client_id: Option<StrBytes>,
    body: &R,
    version: i16,
) -> Result<OutFrame, EncodeError> {
    let mut out = begin();
    put_header(
        &mut out,
        R::KEY,
        version,
        R::header_version(version),
        correlation_id,
        client_id,
    )
    .map_err(named::<R>(version))?;
    body.encode(&mut out, version)
        .map_err(named::<R>(version))?;
    finish(out)
}

/// The frame of a request whose body is already bytes.
pub fn encode_raw_request(
    key: i16,
    version: i16,
    correlation_id: i32,
    client_id: Option<StrBytes>,
    body: Bytes,
) -> Result<OutFrame, EncodeError> {
    let mut out = begin();
    let header_version = request_header_version(key, version);
    put_header(
        &mut out,
        key,
        version,
        header_version,
        correlation_id,
        client_id,
    )
    .map_err(named::<RequestHeader>(version))?;
    out.put_shared_bytes(body);
    finish(out)
}

fn put_header(
    out: &mut OutFrame,
    key: i16,
    version: i16,
    header_version: i16,
    correlation_id: i32,
    client_id: Option<StrBytes>,
) -> Result<(), ProtoError> {
    let mut header = RequestHeader::default();
    header.request_api_key = key;
    header.request_api_version = version;
    header.correlation_id = correlation_id;
    header.client_id = client_id;
    header.encode(out, header_version)
}
