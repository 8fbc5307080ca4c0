//! The beginning of a cluster: its first head. Only the operator and `dev` do this; a broker never does.

use super::format::initial;
use super::keys;
use crate::store::{HeadObject, Store, StoreError};
use leasehold_types::ClusterId;

/// How a cluster came by its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Genesis {
    /// There was nothing: the cluster begins now.
    Created(HeadObject),
    /// There was a head already; this is its cluster id.
    Adopted(ClusterId),
}

/// Why there must be no genesis.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "there is no head in {place}, but {chunks} metadata chunks of cluster {cluster}: restore the head, or delete the chunks to begin a new cluster"
    )]
    ChunksWithoutHead {
        place: String,
        cluster: ClusterId,
        chunks: usize,
    },
    #[error("the head in {place} has no {}", keys::CLUSTER_ID)]
    Foreign { place: String },
}

/// Creates the head if neither a head nor a chunk exists; adopts a head that does. That no volume of
/// the cluster exists is for the caller to see to.
pub async fn genesis(store: &dyn Store, id: &ClusterId) -> Result<Genesis, GenesisError> {
    if let Some(head) = store.read_head().await? {
        return adopt(store, &head);
    }
    let chunks = store.list_chunks().await?;
    if let Some(chunk) = chunks.first() {
        return Err(GenesisError::ChunksWithoutHead {
            place: store.describe(),
            cluster: chunk.cluster.clone(),
            chunks: chunks.len(),
        });
    }
    match store.create_head(&initial(id)).await {
        Ok(head) => Ok(Genesis::Created(head)),
        // Another was faster, or our own request came twice: what stands there counts.
        Err(StoreError::Exists { what }) => match store.read_head().await? {
            Some(head) => adopt(store, &head),
            None => Err(StoreError::Exists { what }.into()),
        },
        Err(error) => Err(error.into()),
    }
}

fn adopt(store: &dyn Store, head: &HeadObject) -> Result<Genesis, GenesisError> {
    match head.data.get(keys::CLUSTER_ID) {
        Some(id) => Ok(Genesis::Adopted(ClusterId(id.clone()))),
        None => Err(GenesisError::Foreign {
            place: store.describe(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::simulated::SimulatedStore;
    use crate::store::{Chunk, ChunkBody};
    use leasehold_types::ControllerEpoch;

    #[tokio::test]
    async fn genesis_happens_once_and_later_calls_adopt() {
        let store = SimulatedStore::new();
        let id = ClusterId::random();
        let first = genesis(&store, &id).await.unwrap();
        assert!(matches!(first, Genesis::Created(_)));
        let second = genesis(&store, &ClusterId::random()).await.unwrap();
        assert_eq!(second, Genesis::Adopted(id));
    }

    #[tokio::test]
    async fn chunks_without_a_head_are_no_new_cluster() {
        let store = SimulatedStore::new();
        let chunk = Chunk {
            name: "1-a".into(),
            cluster: ClusterId("old".into()),
            epoch: ControllerEpoch(1),
            body: ChunkBody::Lines(String::new()),
        };
        store.create_chunk(&chunk).await.unwrap();
        let refused = genesis(&store, &ClusterId::random()).await;
        assert!(matches!(
            refused,
            Err(GenesisError::ChunksWithoutHead { .. })
        ));
    }
}
