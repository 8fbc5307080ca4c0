//! Who is in a generation, who leads it, and who has which partitions (G3).

use super::*;

impl Checker {
    pub(super) fn join_answered(
        &mut self,
        now: u64,
        coordinator: Option<Coordinator>,
        request: &JoinRequest,
        response: &JoinResponse,
    ) -> Vec<String> {
        let (group, member) = (&request.group_id, &response.member_id);
        let groups = &mut self.groups;
        if !member.is_empty()
            && matches!(
                response.error,
                ErrorCode::None | ErrorCode::MemberIdRequired
            )
        {
            groups
                .known
                .insert(member.clone(), request.instance_id.clone());
        }
        if !response.error.is_ok() {
            return Vec::new();
        }
        let mut lines = Vec::new();
        let number = response.generation;
        let (leader, protocol) = (
            groups.person(&response.leader),
            response.protocol_name.clone(),
        );
        let protocol = protocol.unwrap_or_default();
        let key = (group.clone(), number);
        let generation = groups.generations.entry(key).or_default();
        generation.leaders.insert(leader.clone());
        let Some(coordinator) = coordinator else {
            return lines;
        };
        let key = (group.clone(), coordinator);
        let mut told = groups.told.remove(&key).unwrap_or_default();
        told.out.remove(member);
        if let Some(instance) = &request.instance_id {
            let ids = told.instances.entry(instance.clone()).or_default();
            if !ids.contains(member) {
                ids.push(member.clone());
            }
        }
        let is = (leader, protocol);
        let known = told.generations.entry(number).or_insert_with(|| is.clone());
        if *known != is {
            lines.push(format!("G3 {member} is told of {is:?} as leader and protocol of generation {number} of {group}, others of {known:?}"));
        }
        if !response.members.is_empty() && number > told.newest {
            let people: BTreeSet<String> = response
                .members
                .iter()
                .map(|one| {
                    one.instance_id
                        .clone()
                        .unwrap_or_else(|| one.member_id.clone())
                })
                .collect();
            let patience = u64::from(SESSION.min(REBALANCE).unsigned_abs());
            for (one, at) in &told.well {
                if !people.contains(&groups.person(one)) && now < at + patience {
                    lines.push(format!("G3 {one} is left out of generation {number} of {group}; at {at} it was told that all is well"));
                }
            }
        }
        if number > told.newest {
            told.newest = number;
        }
        self.groups.told.insert(key, told);
        lines
    }

    pub(super) fn sync_answered(
        &mut self,
        request: &SyncRequest,
        response: &SyncResponse,
    ) -> Vec<String> {
        let (group, number) = (&request.group_id, request.generation);
        let member = self.groups.person(&request.member_id);
        let newest = self.groups.shared.entry(group.clone()).or_insert(-1);
        if number > *newest {
            *newest = number;
            self.groups.counts[2] += 1;
        }
        let groups = &mut self.groups;
        let mut generation = groups
            .generations
            .remove(&(group.clone(), number))
            .unwrap_or_default();
        let mut lines = Vec::new();
        let mine = share(&response.assignment);
        for (other, theirs) in &generation.shares {
            let both: Vec<&Part> = mine.iter().filter(|part| theirs.contains(part)).collect();
            if *other != member && !both.is_empty() {
                lines.push(format!(
                    "G3 {member} and {other} both have {both:?} in generation {number} of {group}"
                ));
            }
        }
        let known = generation.shares.get(&member);
        if known.is_some_and(|known| *known != mine) {
            lines.push(format!("G3 {member} is given {mine:?} in generation {number} of {group}, and was given {known:?}"));
        }
        let from_leader = |(from, to, what): &(String, String, Vec<Part>)| {
            let from = groups.person(from);
            generation.leaders.contains(&from) && groups.person(to) == member && *what == mine
        };
        if !mine.is_empty() && !generation.wanted.iter().any(from_leader) {
            lines.push(format!("G3 {member} is given {mine:?} in generation {number} of {group}; no leader ever said so"));
        }
        if let Some(protocol) = &response.protocol_name {
            let known = generation.protocol.get_or_insert_with(|| protocol.clone());
            if known != protocol {
                lines.push(format!(
                    "G3 generation {number} of {group} has the protocols {known} and {protocol}"
                ));
            }
        }
        generation.shares.insert(member, mine);
        groups
            .generations
            .insert((group.clone(), number), generation);
        lines
    }
}
