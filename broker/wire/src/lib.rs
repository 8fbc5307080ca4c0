//! The Kafka protocol as bytes: frames, headers, versions, bodies, and a small client.
//!
//! Knows no broker. What it promises to those who use it:
//! - nothing that a peer sends makes it panic, or allocate more than the bytes that really arrived
//!   justify ([`frame`], [`decode`]);
//! - only what [`versions`] lists is decoded for a client, and every listed version is encodable;
//! - record batches pass through as opaque [`bytes::Bytes`], never copied and never re-encoded.
//!
//! The generated message types live in [`kafka`]; this crate is the only one that knows which
//! library they come from.

pub mod batch;
pub mod client;
pub mod decode;
pub mod encode;
pub mod error_code;
pub mod frame;
pub mod header;
pub mod versions;

pub use client::{Client, ClientError, ClientOptions};
pub use decode::{DecodeError, decode, decode_limited};
pub use encode::{EncodeError, OutFrame, encode_raw_reply, encode_reply, encode_request};
pub use error_code::ErrorCode;
pub use frame::{FrameBuffer, FrameError};
pub use header::RequestHead;
pub use kafka::messages::ApiKey;
pub use kafka::protocol::StrBytes;
pub use proto_kafka as kafka;
