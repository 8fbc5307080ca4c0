//! The metadata as it is kept: head, entries, snapshot, a broker's copy, and the chunks of a store.
//!
//! Input: `[what] [text]`. A head is lines `key=value` in which `\x01` stands for a line's end. Whatever becomes an image is
//! written as a snapshot and as a copy, and read back as the same image.

use leasehold_metadata::Image;
use leasehold_metadata::head::chunks::{Part, unpack};
use leasehold_metadata::head::copy::{copy_text, parse_copy};
use leasehold_metadata::head::format::{Head, entry_text, parse_entries};
use leasehold_metadata::head::load::{load, parse_snapshot, snapshot_text};
use leasehold_metadata::store::simulated::SimulatedStore;
use leasehold_metadata::store::{ChunkBody, HeadObject, Store};
use leasehold_types::ClusterId;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// See above.
pub(crate) fn run(data: &[u8]) {
    let Some((what, bytes)) = data.split_first() else {
        return;
    };
    if what % 5 == 0 {
        return chunk(bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let cluster = ClusterId("c".into());
    match what % 5 {
        1 => {
            if let Ok(image) = parse_snapshot(&cluster, text) {
                both_ways(&image);
            }
        }
        2 => {
            if let Ok((image, good)) = parse_copy(text, None) {
                assert!(text.is_char_boundary(good), "{good} of {}", text.len());
                let again = parse_copy(&text[..good], None).expect("its good bytes are good");
                assert_eq!((&again.0, again.1), (&image, good));
                both_ways(&image);
            }
        }
        3 => entries(&cluster, text),
        _ => head(text),
    }
}

fn both_ways(image: &Image) {
    let again = parse_snapshot(&image.cluster_id, &snapshot_text(image));
    assert_eq!(again.as_ref(), Ok(image), "from a snapshot");
    let copied = parse_copy(&copy_text(image), Some(&image.cluster_id));
    assert_eq!(
        copied.map(|(image, _)| image).as_ref(),
        Ok(image),
        "from a copy"
    );
}

fn entries(cluster: &ClusterId, text: &str) {
    let Ok(entries) = parse_entries(text) else {
        return;
    };
    let again: String = entries.iter().map(entry_text).collect();
    assert_eq!(parse_entries(&again).as_ref(), Ok(&entries));
    let mut image = Image::genesis(cluster.clone());
    for entry in &entries {
        let before = image.position;
        match image.apply(entry) {
            Ok(()) => assert!(image.position.seq > before.seq, "{entry:?}"),
            Err(_) => return,
        }
    }
    both_ways(&image);
}

fn head(text: &str) {
    let data: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.replace('\x01', "\n")))
        .collect();
    let uid = "u".to_owned();
    let Ok(head) = Head::parse(&HeadObject {
        uid,
        data: data.clone(),
    }) else {
        return;
    };
    let _ = (head.tail_bytes(), head.chunk_names().count());
    let store = SimulatedStore::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        if store.create_head(&data).await.is_ok()
            && let Ok(loaded) = load(&store).await
        {
            both_ways(&loaded.image);
        }
    });
}

/// A compressed part with the hash that the head would name.
fn chunk(bytes: &[u8]) {
    let digest = Sha256::digest(bytes);
    let part = Part {
        name: "1-a".into(),
        sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let _ = unpack(&[part], vec![ChunkBody::Zstd(bytes.to_vec())]);
}
