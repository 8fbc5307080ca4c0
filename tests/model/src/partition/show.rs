//! A state in words, for the way to a broken promise.

use super::Partition;
use super::state::{NONE, Phase, State, bit};
use std::fmt::Write as _;

fn set(bits: u8) -> String {
    let members = (0..8).filter(|n| bits & bit(*n) != 0);
    let names: Vec<String> = members.map(|n| n.to_string()).collect();
    format!("{{{}}}", names.join(" "))
}

impl Partition {
    pub(super) fn describe(&self, s: &State) -> String {
        let now = self.product.images.facts(s.newest());
        let leader = now.leader.map_or("nobody".to_owned(), |l| l.to_string());
        let mut text = format!(
            "{leader} leads (epoch {}, {}), ISR {}, ELR {}, unfenced {}, lives {:?}",
            now.leader_epoch,
            now.partition_epoch,
            set(now.isr),
            set(now.elr),
            set(now.unfenced),
            &now.lives[..self.bounds.brokers],
        );
        for (id, node) in s.nodes.iter().enumerate().take(self.bounds.brokers) {
            let log: Vec<String> = node
                .log
                .records()
                .iter()
                .map(|r| format!("{}@{}", r.value(), r.epoch()))
                .collect();
            let _ = write!(text, " | {id}.{}", node.life);
            match node.phase {
                Phase::Down => text.push_str(" down"),
                Phase::Starting => text.push_str(" starting"),
                Phase::Up => {
                    let view = self.product.images.facts(s.view(id as u8));
                    let facts = self.product.replicas.facts(node.replica);
                    let _ = write!(
                        text,
                        " at ({}, {})",
                        view.leader_epoch, view.partition_epoch
                    );
                    if let Some(epoch) = facts.leads {
                        let _ =
                            write!(text, " leads {epoch} reckoning with {}", set(facts.maximal));
                    }
                    if let Some((leader, _)) = facts.follows {
                        let _ = write!(text, " follows {leader}");
                    }
                    if facts.proposes {
                        text.push_str(" asks");
                    }
                    let _ = write!(text, " hw {}", facts.high_watermark);
                }
            }
            let _ = write!(text, " log [{}]", log.join(" "));
        }
        for flight in s.flights.iter().filter(|f| f.request != NONE) {
            let request = self.product.requests.value(flight.request);
            let isr: Vec<String> = request
                .request
                .isr
                .iter()
                .map(|(id, life)| format!("{id}.{life}"))
                .collect();
            let _ = write!(
                text,
                " | on its way: ISR {} on ({}, {})",
                isr.join(" "),
                request.request.leader_epoch,
                request.request.partition_epoch
            );
        }
        if let Some(fetch) = s.late {
            let _ = write!(
                text,
                " | on its way: fetch of {}.{} in epoch {} at {}",
                fetch.from, fetch.life, fetch.epoch, fetch.offset
            );
        }
        let _ = write!(
            text,
            " | committed {}, acknowledged {}",
            set(s.committed),
            set(s.acknowledged)
        );
        text
    }
}
