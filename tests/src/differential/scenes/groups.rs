//! Groups of both protocols, from the first join to the deletion.

use super::{Ask, Bind, Episode};
use serde_json::{Value, json};

/// A subscription to no topic, and an assignment of none, as Java's consumer writes them.
const SUBSCRIPTION: &str = "000100000000ffffffff";

impl Episode {
    pub(super) fn classic_group(&mut self) -> Vec<Ask> {
        let name = self.one(&["g", "g", "h"]);
        let (group, number) = (self.name(name), self.rng_percent());
        match number {
            0..40 => self.life(&group),
            40..60 => vec![self.commit(&group, "", -1)],
            60..75 => vec![self.offset_fetch(&group)],
            75..85 => self.about(&group),
            _ => self.parts(&group),
        }
    }

    fn join(&mut self, group: &str, slot: u32, member: &str) -> Ask {
        let instance = if slot == 2 {
            json!("instance")
        } else {
            Value::Null
        };
        let session = self.one(&[60_000, 60_000, 60_000, 5_999, 0, 1_800_001]);
        let protocols = self.one(&[
            json!([{"Name": "range", "Metadata": SUBSCRIPTION}]),
            json!([{"Name": "range", "Metadata": SUBSCRIPTION}, {"Name": "roundrobin", "Metadata": SUBSCRIPTION}]),
        ]);
        let body = json!({"GroupId": group, "SessionTimeoutMs": session, "RebalanceTimeoutMs": 5_000, "MemberId": member,
            "GroupInstanceId": instance, "ProtocolType": "consumer", "Protocols": protocols, "Reason": "because"});
        Ask::new("JoinGroup", body).from(1).binds(Bind::Member {
            group: group.to_owned(),
            slot,
        })
    }

    fn life(&mut self, group: &str) -> Vec<Ask> {
        let slot = self.one(&[1, 1, 1, 2]);
        let (member, generation) = (
            format!("$member:{group}:{slot}"),
            format!("$gen:{group}:{slot}"),
        );
        let instance = if slot == 2 {
            json!("instance")
        } else {
            Value::Null
        };
        let mut all = Vec::new();
        // A member that is asked for its id joins with it; one that joined already joins again.
        for id in ["", &member] {
            let mut join = self.join(group, slot, id).plain();
            join.body["SessionTimeoutMs"] = json!(60_000);
            all.push(join);
        }
        if self.chance(40) {
            let odd = self.join(group, slot, &member);
            all.push(odd);
        }
        let sync = json!({"GroupId": group, "GenerationId": generation, "MemberId": member, "GroupInstanceId": instance,
            "ProtocolType": "consumer", "ProtocolName": "range", "Assignments": [{"MemberId": member, "Assignment": "0001"}]});
        all.push(Ask::new("SyncGroup", sync));
        for _ in 0..3 {
            let ask = match self.rng_percent() {
                0..40 => Ask::new(
                    "Heartbeat",
                    json!({"GroupId": group, "GenerationId": generation, "MemberId": member, "GroupInstanceId": instance}),
                ),
                40..70 => {
                    let mut commit = self.commit(group, &member, 0);
                    commit.body["GenerationIdOrMemberEpoch"] = json!(generation);
                    commit.body["GroupInstanceId"] = instance.clone();
                    commit
                }
                70..85 => self.offset_fetch(group),
                _ => Ask::new(
                    "DescribeGroups",
                    json!({"Groups": [group], "IncludeAuthorizedOperations": false}),
                ),
            };
            all.push(ask);
        }
        let leave = json!({"GroupId": group, "MemberId": member, "Members": [{"MemberId": member, "GroupInstanceId": instance, "Reason": "done"}]});
        all.push(Ask::new("LeaveGroup", leave).plain());
        all.extend(self.about(group));
        all
    }

    fn commit(&mut self, group: &str, member: &str, generation: i32) -> Ask {
        let topic = self.topic();
        let partition = json!({"PartitionIndex": self.one(&[0, 0, 1, 7]), "CommittedOffset": self.one(&[0, 1, 3, 100, -1]),
            "CommittedLeaderEpoch": self.one(&[-1, 0, 5]), "CommittedMetadata": self.one(&[json!("m"), json!(""), Value::Null, json!("x".repeat(5000))])});
        let topic_id = Self::topic_id(&topic);
        Ask::new(
            "OffsetCommit",
            json!({"GroupId": group, "GenerationIdOrMemberEpoch": generation, "MemberId": member, "GroupInstanceId": null, "RetentionTimeMs": -1,
                "Topics": [{"Name": topic, "TopicId": topic_id, "Partitions": [partition]}]}),
        )
    }

    fn offset_fetch(&mut self, group: &str) -> Ask {
        let topic = self.topic();
        let indexes = self.one(&[json!([0]), json!([0, 1]), json!([7]), json!([])]);
        let all = self.chance(30);
        let old = if all {
            Value::Null
        } else {
            json!([{"Name": topic, "PartitionIndexes": indexes}])
        };
        let body = json!({"GroupId": group, "Topics": old.clone(), "RequireStable": self.chance(30),
            "Groups": [{"GroupId": group, "MemberId": null, "MemberEpoch": -1, "Topics": old}]});
        // Before version 2 there is no null: nothing is asked for.
        Ask::new("OffsetFetch", body).from(if all { 2 } else { 0 })
    }

    fn about(&mut self, group: &str) -> Vec<Ask> {
        let (topic, missing) = (self.topic(), self.name("no-group"));
        let group = self.one(&[group.to_owned(), group.to_owned(), missing]);
        let pick = self.rng_percent();
        vec![match pick {
            0..20 => Ask::new(
                "DescribeGroups",
                json!({"Groups": [group], "IncludeAuthorizedOperations": self.chance(30)}),
            ),
            20..40 => Ask::new(
                "ListGroups",
                json!({"StatesFilter": self.one(&[json!([]), json!(["Empty"]), json!(["Stable", "stable"]), json!(["none"])]),
                "TypesFilter": self.one(&[json!([]), json!(["classic"]), json!(["consumer"]), json!(["none"])])}),
            ),
            40..55 => Ask::new(
                "OffsetDelete",
                json!({"GroupId": group, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": self.one(&[0, 1, 7])}]}]}),
            ),
            55..70 => Ask::new("DeleteGroups", json!({"GroupsNames": [group]})),
            70..85 => Ask::new(
                "ConsumerGroupDescribe",
                json!({"GroupIds": [group], "IncludeAuthorizedOperations": self.chance(30)}),
            ),
            _ => Ask::new(
                "FindCoordinator",
                json!({"Key": group, "KeyType": self.one(&[0, 0, 1, 2, 9]), "CoordinatorKeys": [group]}),
            ),
        }]
    }

    /// Requests of a member that is none.
    fn parts(&mut self, group: &str) -> Vec<Ask> {
        let member = self.one(&["nobody", "", "$member:x"]);
        let instance = self.one(&[Value::Null, Value::Null, json!("instance")]);
        let pick = self.rng_percent();
        vec![match pick {
            0..30 => Ask::new(
                "Heartbeat",
                json!({"GroupId": group, "GenerationId": 1, "MemberId": member, "GroupInstanceId": instance}),
            ),
            30..60 => Ask::new(
                "SyncGroup",
                json!({"GroupId": group, "GenerationId": 1, "MemberId": member, "GroupInstanceId": instance,
                "ProtocolType": "consumer", "ProtocolName": "range", "Assignments": []}),
            ),
            60..80 => Ask::new(
                "LeaveGroup",
                json!({"GroupId": group, "MemberId": member, "Members": [{"MemberId": member, "GroupInstanceId": instance}]}),
            ),
            _ => self.join(group, 3, "nobody"),
        }]
    }

    pub(super) fn consumer_group(&mut self) -> Vec<Ask> {
        let group = self.name("k");
        let (a, id) = (self.name("a"), Self::topic_id(&self.name("a")));
        let beat = |epoch: Value, first: bool, owned: Value| {
            json!({"GroupId": group, "MemberId": "member-1", "MemberEpoch": epoch, "InstanceId": null, "RackId": null,
                "RebalanceTimeoutMs": if first { 60_000 } else { -1 }, "SubscribedTopicNames": if first { json!([a]) } else { Value::Null },
                "ServerAssignor": null, "TopicPartitions": owned})
        };
        let bind = Bind::Member {
            group: group.clone(),
            slot: 1,
        };
        let epoch = format!("$gen:{group}:1");
        let all_of_a = json!([{"TopicId": id, "Partitions": [0, 1]}]);
        let mut all = vec![
            Ask::new("ConsumerGroupHeartbeat", beat(json!(0), true, json!([])))
                .plain()
                .binds(bind.clone()),
            Ask::new(
                "ConsumerGroupHeartbeat",
                beat(json!(epoch), false, Value::Null),
            ),
            Ask::new(
                "ConsumerGroupHeartbeat",
                beat(json!(epoch), false, all_of_a),
            ),
        ];
        let mut odd = beat(json!(0), true, json!([]));
        odd["SubscribedTopicNames"] = self.one(&[
            json!([]),
            json!([a, a]),
            Value::Null,
            json!([self.name("missing")]),
        ]);
        odd["ServerAssignor"] =
            self.one(&[json!("range"), json!("uniform"), json!("none"), Value::Null]);
        odd["RebalanceTimeoutMs"] = self.one(&[json!(-1), json!(60_000), json!(0)]);
        all.push(Ask::new("ConsumerGroupHeartbeat", odd).binds(bind));
        let mut commit = self.commit(&group, "member-1", 0);
        commit.body["GenerationIdOrMemberEpoch"] = json!(epoch);
        all.push(commit);
        let mut fetch = self.offset_fetch(&group);
        fetch.body["Groups"][0]["MemberId"] =
            self.one(&[json!("member-1"), json!("nobody"), Value::Null]);
        fetch.body["Groups"][0]["MemberEpoch"] = json!(epoch);
        all.push(fetch);
        all.push(Ask::new(
            "ConsumerGroupDescribe",
            json!({"GroupIds": [group], "IncludeAuthorizedOperations": false}),
        ));
        all.push(Ask::new(
            "ConsumerGroupHeartbeat",
            beat(
                self.one(&[json!(-1), json!(-2), json!(500), json!(-1)]),
                false,
                Value::Null,
            ),
        ));
        all.extend(self.about(&group));
        all
    }
}
