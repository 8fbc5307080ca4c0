//! Faults that aim at a message that is just being sent: a follower's fetch, or a leader's wish to take someone
//! into its ISR. It comes late, or never, and meanwhile its subject gets no other fetch through; in most cases its
//! machine also loses its power, and it is soon back with less than the message says. And a coordinator that is
//! about to be asked for the end of a transaction may be cut off from all but its clients. Its answer to a leader
//! may come when the transaction that it speaks of has ended; or it may be the last to hear of a new topic.
//!
//! At random all this would hardly ever happen together.

use crate::broker::mail::Mail;
use crate::broker::place;
use crate::check::name_of;
use crate::core::Core;
use leasehold_metadata::rpc::Request;
use rand::Rng as _;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    Fetch,
    Proposal,
}

/// What becomes of a message.
pub(crate) enum Fate {
    Spared,
    Late(u64),
    Lost,
}

impl Core {
    /// What becomes of this message, and whatever befalls its subject with it.
    pub(crate) fn ambush(&mut self, from: usize, mail: &Mail) -> Fate {
        let subject = match (self.aim, mail) {
            (Some(Aim::Fetch), Mail::Fetch { .. }) => Some(from),
            (Some(Aim::Proposal), Mail::Call { request, .. }) => self.joiner(request),
            _ => None,
        };
        let Some(node) = subject else {
            return Fate::Spared;
        };
        let proposal = self.aim.take() == Some(Aim::Proposal);
        let lost = proposal && self.chance(300);
        // Long enough for a restart; mostly so short that little else has changed, and that its sender still waits.
        let late = match proposal && self.chance(400) {
            true => self.rng.random_range(900..2_500),
            false => self.rng.random_range(200..900),
        };
        let struck = self.chance(650);
        if struck {
            self.struck.push(node);
        }
        self.mute.insert(node, self.now + late + 200);
        let line = format!(
            "fault a {} of {from} is late by {late} ms (lost: {lost}), broker {node} is mute (struck: {struck})",
            if mail.is_proposal() {
                "proposal"
            } else {
                "fetch"
            }
        );
        self.note(line);
        match lost {
            true => Fate::Lost,
            false => Fate::Late(late),
        }
    }

    /// A coordinator is cut off from all other brokers, though clients reach it: what it stores now no other has. Mostly
    /// it then loses its power as well.
    pub(crate) fn waylay(&mut self, node: usize) {
        let long = self.rng.random_range(300..3_000);
        let struck = self.chance(700);
        self.note(format!(
            "fault coordinator {node} is cut off for {long} ms (struck: {struck})"
        ));
        let until = self.now + long;
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.cuts.insert((node, other), until);
            self.cuts.insert((other, node), until);
        }
        if struck {
            let soon = self.rng.random_range(10..80);
            self.later(soon, move |core| {
                // The faults may have ended meanwhile.
                if !core.cuts.is_empty() {
                    core.struck.push(node);
                }
            });
        }
    }

    /// How late an answer is to a leader that asks about this transactional id: so late that the transaction has ended,
    /// and not so late that nobody waits.
    pub(crate) fn answer_held_up(&mut self, id: &str) -> u64 {
        match self.held_up.remove(id) {
            true => self.rng.random_range(100..800),
            false => 0,
        }
    }

    /// Who is to join an ISR by this request.
    fn joiner(&self, request: &Request) -> Option<usize> {
        let Request::AlterPartition(alter) = request else {
            return None;
        };
        alter.proposals.iter().find_map(|proposal| {
            let part = self
                .check
                .parts
                .get(&name_of((proposal.topic, proposal.partition)))?;
            let joins = |id: i32| !part.isr.contains(&i64::from(id));
            let joiner = proposal.isr.iter().find(|(id, _)| joins(id.0))?;
            Some(place(joiner.0)).filter(|node| *node < self.nodes.len())
        })
    }
}
