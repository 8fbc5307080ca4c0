//! Topics, configurations, quotas, and what tells of the cluster.

use super::{Ask, Episode};
use serde_json::{Value, json};

impl Episode {
    pub(super) fn metadata(&mut self) -> Vec<Ask> {
        let topic = self.topic();
        let ask = match self.rng_percent() {
            0..45 => {
                let topics = self.one(&[
                    json!([{"Name": topic, "TopicId": "00"}]),
                    json!([{"Name": topic, "TopicId": "00"}, {"Name": topic, "TopicId": "00"}]),
                    json!([{"Name": null, "TopicId": Self::topic_id(&topic)}]),
                    json!([{"Name": topic, "TopicId": Self::topic_id(&topic)}]),
                    json!([{"Name": null, "TopicId": "00"}]),
                    json!([]),
                    Value::Null,
                ]);
                let auto = self.one(&[false, false, true]);
                let body = json!({"Topics": topics, "AllowAutoTopicCreation": auto,
                    "IncludeClusterAuthorizedOperations": self.chance(20), "IncludeTopicAuthorizedOperations": self.chance(20)});
                Ask::new("Metadata", body)
            }
            45..65 => {
                let cursor = self.one(&[
                    Value::Null,
                    Value::Null,
                    json!({"TopicName": topic, "PartitionIndex": 0}),
                    json!({"TopicName": topic, "PartitionIndex": -1}),
                ]);
                let topics = self.one(&[
                    json!([{"Name": topic}]),
                    json!([{"Name": topic}, {"Name": self.name("a")}, {"Name": self.name("b")}]),
                ]);
                Ask::new(
                    "DescribeTopicPartitions",
                    json!({"Topics": topics, "ResponsePartitionLimit": self.one(&[2000, 1, 2, 0]), "Cursor": cursor}),
                )
            }
            65..80 => Ask::new(
                "DescribeCluster",
                json!({"IncludeClusterAuthorizedOperations": self.chance(30), "EndpointType": self.one(&[1, 1, 1, 2, 3]), "IncludeFencedBrokers": self.chance(30)}),
            ),
            80..92 => Ask::new(
                "ApiVersions",
                json!({"ClientSoftwareName": self.one(&["differential", "", "no good"]), "ClientSoftwareVersion": "1.0"}),
            ),
            _ => {
                let topics = self.one(&[
                    json!([{"Topic": topic, "Partitions": [0, 7]}]),
                    json!([]),
                    Value::Null,
                ]);
                Ask::new("DescribeLogDirs", json!({"Topics": topics}))
            }
        };
        vec![ask]
    }

    pub(super) fn admin(&mut self) -> Vec<Ask> {
        match self.rng_percent() {
            0..22 => self.create(),
            22..32 => self.delete(),
            32..42 => self.partitions(),
            42..72 => self.configs(),
            72..82 => self.quotas(),
            82..90 => self.reassign(),
            90..93 => self.elect(),
            93..96 => self.move_logs(),
            96..98 => vec![Ask::new("UpdateFeatures", json!({"timeoutMs": 1000, "ValidateOnly": true,
                "FeatureUpdates": [{"Feature": "no.such.feature", "MaxVersionLevel": 1, "UpgradeType": 1}]})).plain()],
            _ => {
                vec![Ask::new("UnregisterBroker", json!({"BrokerId": self.one(&[5, 77])})).plain()]
            }
        }
    }

    /// Each peer has one directory: where a replica lies is where it may be moved to.
    fn move_logs(&mut self) -> Vec<Ask> {
        let mut dir = || {
            let topic = self.topic();
            let name = self.one(&[topic.as_str(), &topic, &topic, "bad name", ""]);
            let partitions = self.one(&[
                json!([0]),
                json!([0, 0]),
                json!([0, 7]),
                json!([-1]),
                json!([]),
            ]);
            json!({"Path": self.one(&["$dir:0", "$dir:0", "$dir:0", "/no/such/folder", "relative", ""]),
                "Topics": [{"Name": name, "Partitions": partitions}]})
        };
        let (one, other) = (dir(), dir());
        let dirs = self.one(&[json!([one]), json!([one]), json!([one, other]), json!([])]);
        vec![
            Ask::new("DescribeLogDirs", json!({"Topics": []})),
            Ask::new("AlterReplicaLogDirs", json!({"Dirs": dirs})),
        ]
    }

    fn create(&mut self) -> Vec<Ask> {
        let name = self.one(&[
            "new",
            "newer",
            "a",
            "",
            ".",
            "bad name",
            "with.dot",
            "with_dot",
            "__consumer_offsets",
        ]);
        let name = if name.is_empty() || name.starts_with(['.', '_']) {
            name.to_owned()
        } else {
            self.name(name)
        };
        let configs = self.one(&[
            json!([]),
            json!([]),
            json!([{"Name": "retention.ms", "Value": "1000"}]),
            json!([{"Name": "retention.ms", "Value": "soon"}]),
            json!([{"Name": "retention.ms", "Value": null}]),
            json!([{"Name": "no.such.key", "Value": "1"}]),
            json!([{"Name": "cleanup.policy", "Value": "compact,delete"}]),
            json!([{"Name": "cleanup.policy", "Value": "none"}]),
            json!([{"Name": "min.insync.replicas", "Value": "2"}]),
            json!([{"Name": "min.insync.replicas", "Value": "0"}]),
            json!([{"Name": "retention.ms", "Value": "1000"}, {"Name": "retention.ms", "Value": "2000"}]),
        ]);
        let shape = self.one(&[
            json!({"NumPartitions": 1, "ReplicationFactor": 1}),
            json!({"NumPartitions": 3, "ReplicationFactor": -1}),
            json!({"NumPartitions": -1, "ReplicationFactor": 1}),
            json!({"NumPartitions": -1, "ReplicationFactor": -1}),
            json!({"NumPartitions": 0, "ReplicationFactor": 1}),
            json!({"NumPartitions": 1, "ReplicationFactor": 3}),
            json!({"NumPartitions": 1, "ReplicationFactor": 0}),
            json!({"NumPartitions": -1, "ReplicationFactor": -1, "Assignments": [{"PartitionIndex": 0, "BrokerIds": [0]}, {"PartitionIndex": 1, "BrokerIds": [0]}]}),
            json!({"NumPartitions": -1, "ReplicationFactor": -1, "Assignments": [{"PartitionIndex": 1, "BrokerIds": [0]}]}),
            json!({"NumPartitions": -1, "ReplicationFactor": -1, "Assignments": [{"PartitionIndex": 0, "BrokerIds": [0, 0]}]}),
            json!({"NumPartitions": -1, "ReplicationFactor": -1, "Assignments": [{"PartitionIndex": 0, "BrokerIds": []}]}),
            json!({"NumPartitions": -1, "ReplicationFactor": -1, "Assignments": [{"PartitionIndex": 0, "BrokerIds": [5]}]}),
            json!({"NumPartitions": 2, "ReplicationFactor": 1, "Assignments": [{"PartitionIndex": 0, "BrokerIds": [0]}]}),
        ]);
        let mut topic = json!({"Name": name, "Configs": configs});
        if let (Value::Object(topic), Value::Object(shape)) = (&mut topic, shape) {
            topic.extend(shape);
        }
        vec![Ask::new(
            "CreateTopics",
            json!({"Topics": [topic], "timeoutMs": 10_000, "validateOnly": self.chance(40)}),
        )]
    }

    fn delete(&mut self) -> Vec<Ask> {
        let name = self.one(&["new", "newer", "with.dot", "missing"]);
        let name = self.name(name);
        let topics = self.one(&[
            json!([{"Name": name, "TopicId": "00"}]),
            json!([{"Name": null, "TopicId": Self::topic_id(&name)}]),
            json!([{"Name": name, "TopicId": Self::topic_id(&name)}]),
            json!([{"Name": name, "TopicId": "00"}, {"Name": name, "TopicId": "00"}]),
        ]);
        vec![Ask::new(
            "DeleteTopics",
            json!({"Topics": topics, "TopicNames": [name], "TimeoutMs": 10_000}),
        )]
    }

    fn partitions(&mut self) -> Vec<Ask> {
        let name = self.one(&["new", "newer", "missing", "b"]);
        let name = self.name(name);
        let (count, assignments) = self.one(&[
            (2, Value::Null),
            (3, Value::Null),
            (1, Value::Null),
            (0, Value::Null),
            (4, json!([{"BrokerIds": [0]}])),
            (3, json!([{"BrokerIds": [5]}])),
            (3, json!([{"BrokerIds": [0, 0]}])),
        ]);
        // The partitions of `b` stay one.
        let only = name.ends_with("-b") || self.chance(30);
        let topic = json!({"Name": name, "Count": count, "Assignments": assignments});
        let ask = Ask::new(
            "CreatePartitions",
            json!({"Topics": [topic], "TimeoutMs": 10_000, "ValidateOnly": only}),
        );
        vec![if only { ask.plain() } else { ask }]
    }

    fn resource(&mut self) -> (i8, String) {
        let topic = self.topic();
        let (group, subscription) = (self.name("g"), self.name("m"));
        self.one(&[
            (2, topic.clone()),
            (2, topic.clone()),
            (2, topic),
            (32, group.clone()),
            (32, group),
            (32, String::new()),
            (16, subscription.clone()),
            (16, subscription),
            (16, String::new()),
            (4, "0".to_owned()),
            (4, String::new()),
            (4, "5".to_owned()),
            (4, "x".to_owned()),
            (3, "0".to_owned()),
            (0, "x".to_owned()),
        ])
    }

    fn configs(&mut self) -> Vec<Ask> {
        let (kind, name) = self.resource();
        let topic_keys = [
            ("retention.ms", "5000"),
            ("retention.ms", "x"),
            ("max.message.bytes", "2000"),
            ("max.message.bytes", "-5"),
            ("cleanup.policy", "delete"),
            ("min.insync.replicas", "1"),
            ("segment.bytes", "5"),
            ("no.such.key", "1"),
            ("compression.type", "zip"),
            ("unclean.leader.election.enable", "maybe"),
        ];
        let broker_keys = [
            ("log.retention.ms", "500000000"),
            ("log.retention.ms", "x"),
            ("no.such.key", "1"),
            ("broker.id", "5"),
            ("listeners", "x"),
            ("message.max.bytes", "1000000"),
            ("num.partitions", "3"),
        ];
        let group_keys = [
            ("consumer.session.timeout.ms", "50000"),
            ("consumer.session.timeout.ms", "1000"),
            ("consumer.session.timeout.ms", "70000"),
            ("consumer.session.timeout.ms", "x"),
            ("consumer.heartbeat.interval.ms", " 7000 "),
            ("consumer.heartbeat.interval.ms", "0"),
            ("consumer.heartbeat.interval.ms", "16000"),
            ("no.such.key", "1"),
        ];
        let metrics_keys = [
            ("interval.ms", "500"),
            ("interval.ms", "5"),
            ("interval.ms", "x"),
            ("metrics", "org.apache.kafka., a,a"),
            ("metrics", ""),
            ("match", "client_id = a.*, client_source_port=9"),
            ("match", "color=red"),
            ("match", "client_id=["),
            ("match", "client_id"),
            ("no.such.key", "1"),
        ];
        let (key, value) = match kind {
            4 => self.one(&broker_keys),
            16 => self.one(&metrics_keys),
            32 => self.one(&group_keys),
            _ => self.one(&topic_keys),
        };
        let value = if self.chance(10) {
            Value::Null
        } else {
            json!(value)
        };
        let describe = Ask::new(
            "DescribeConfigs",
            json!({"Resources": [{"ResourceType": kind, "ResourceName": name,
            "ConfigurationKeys": self.one(&[Value::Null, json!([]), json!(["retention.ms"]), json!(["no.such.key", "log.retention.ms"])])}],
            "IncludeSynonyms": self.chance(50), "IncludeDocumentation": self.chance(20)}),
        );
        let only = self.chance(40);
        match self.rng_percent() {
            0..30 => vec![describe],
            30..75 => {
                let operation = if key == "cleanup.policy" || kind >= 16 {
                    self.one(&[0, 1, 2, 3])
                } else {
                    self.one(&[0, 0, 0, 1, 2, 9])
                };
                let one = json!({"Name": key, "ConfigOperation": operation, "Value": value});
                let configs = if self.chance(10) {
                    json!([one.clone(), one])
                } else {
                    json!([one])
                };
                let alter = json!({"Resources": [{"ResourceType": kind, "ResourceName": name, "Configs": configs}], "ValidateOnly": only});
                vec![Ask::new("IncrementalAlterConfigs", alter), describe]
            }
            75..92 => {
                let alter = json!({"Resources": [{"ResourceType": kind, "ResourceName": name, "Configs": [{"Name": key, "Value": value}]}], "ValidateOnly": only});
                vec![Ask::new("AlterConfigs", alter), describe]
            }
            _ => vec![Ask::new(
                "ListConfigResources",
                json!({"ResourceTypes": self.one(&[json!([]), json!([2]), json!([4]), json!([16]), json!([32]), json!([9])])}),
            )],
        }
    }

    /// Only of users who are nobody here: what throttled this connection would end the test.
    fn quotas(&mut self) -> Vec<Ask> {
        let user = self.name("user");
        let key = self.one(&[
            "producer_byte_rate",
            "consumer_byte_rate",
            "request_percentage",
            "controller_mutation_rate",
            "no_such_quota",
            "connection_creation_rate",
        ]);
        let entity = self.one(&[
            json!([{"EntityType": "user", "EntityName": user}]),
            json!([{"EntityType": "client-id", "EntityName": user}]),
            json!([{"EntityType": "user", "EntityName": user}, {"EntityType": "client-id", "EntityName": user}]),
            json!([{"EntityType": "user", "EntityName": user}, {"EntityType": "user", "EntityName": user}]),
            json!([{"EntityType": "nothing", "EntityName": user}]),
            json!([{"EntityType": "user", "EntityName": ""}]),
            json!([]),
        ]);
        let op = json!({"Key": key, "Value": self.one(&[1000.0, 5.5, 0.0, -1.0, 1e15]), "Remove": self.chance(25)});
        let alter = Ask::new(
            "AlterClientQuotas",
            json!({"Entries": [{"Entity": entity, "Ops": [op]}], "ValidateOnly": self.chance(30)}),
        );
        let component = |this: &mut Self| {
            let kind = this.one(&["user", "client-id", "ip", "nothing", ""]);
            let (how, what) = this.one(&[
                (0, json!(user)),
                (0, Value::Null),
                (1, Value::Null),
                (1, json!(user)),
                (2, Value::Null),
                (3, Value::Null),
            ]);
            json!({"EntityType": kind, "MatchType": how, "Match": what})
        };
        let components: Vec<Value> = (0..self.one(&[0, 1, 1, 2]))
            .map(|_| component(self))
            .collect();
        let describe = Ask::new(
            "DescribeClientQuotas",
            json!({"Components": components, "Strict": self.chance(40)}),
        );
        // A name that is null is the default, which is for everybody.
        vec![alter.plain(), describe]
    }

    fn reassign(&mut self) -> Vec<Ask> {
        let topic = self.topic();
        let partition = self.one(&[0, 0, 1, 7]);
        let replicas = self.one(&[
            json!([0]),
            json!([]),
            json!([0, 0]),
            json!([5]),
            json!([0, 5]),
            Value::Null,
        ]);
        let alter = json!({"TimeoutMs": 1000, "AllowReplicationFactorChange": self.chance(70), "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": partition, "Replicas": replicas}]}]});
        let asked = self.one(&[
            Value::Null,
            json!([{"Name": topic, "PartitionIndexes": [partition]}]),
            json!([]),
        ]);
        let list = Ask::new(
            "ListPartitionReassignments",
            json!({"TimeoutMs": 1000, "Topics": asked}),
        );
        let alter = Ask::new("AlterPartitionReassignments", alter);
        self.one(&[vec![alter.clone()], vec![alter, list.clone()], vec![list]])
    }

    fn elect(&mut self) -> Vec<Ask> {
        let topic = self.topic();
        let asked = self.one(&[
            json!([{"Topic": topic, "Partitions": [0]}]),
            json!([{"Topic": topic, "Partitions": [0, 1, 7]}]),
            json!([]),
        ]);
        vec![Ask::new(
            "ElectLeaders",
            json!({"ElectionType": self.one(&[0, 0, 1, 2]), "TopicPartitions": asked, "TimeoutMs": 1000}),
        )]
    }
}
