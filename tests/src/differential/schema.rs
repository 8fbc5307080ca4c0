//! Kafka's own definitions of its messages, as its jar of clients carries them: JSON with comments.
//!
//! Promise: what is compared does not rest on the codec that Leasehold itself is built with.

use anyhow::{Context as _, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A closed range of versions; empty if `min > max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub min: i16,
    pub max: i16,
}

impl Versions {
    pub const NONE: Self = Self { min: 1, max: 0 };

    /// `none`, `3`, `3+` or `3-5`.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let number = |text: &str| text.trim().parse::<i16>().context("a version");
        Ok(match (text, text.split_once('-'), text.strip_suffix('+')) {
            ("none", ..) => Self::NONE,
            (_, Some((min, max)), _) => Self {
                min: number(min)?,
                max: number(max)?,
            },
            (_, _, Some(min)) => Self {
                min: number(min)?,
                max: i16::MAX,
            },
            _ => Self {
                min: number(text)?,
                max: number(text)?,
            },
        })
    }

    pub fn contains(self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Bool,
    Int8,
    Int16,
    Uint16,
    Int32,
    Int64,
    Float64,
    Uuid,
    String,
    Bytes,
    Records,
    Struct(Vec<Field>),
    Array(Box<Kind>),
}

/// One field of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub name: String,
    pub kind: Kind,
    pub versions: Versions,
    pub nullable: Versions,
    /// The tag, and where it has one.
    pub tag: Option<(u32, Versions)>,
    pub default: Option<Value>,
}

/// A request or a response.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Without `Request` or `Response`.
    pub api: String,
    pub key: i16,
    pub flexible: Versions,
    pub fields: Vec<Field>,
}

/// All requests with their responses, by key.
pub struct Schemas(BTreeMap<i16, (Message, Message)>);

impl Schemas {
    /// Reads every `*.json` of a folder that is a request or a response.
    pub fn load(folder: &Path) -> anyhow::Result<Self> {
        let (mut requests, mut responses) = (BTreeMap::new(), BTreeMap::new());
        let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            let parsed = parse(&text).with_context(|| format!("{}", path.display()))?;
            if let Some((request, message)) = parsed {
                match request {
                    true => requests.insert(message.key, message),
                    false => responses.insert(message.key, message),
                };
            }
        }
        let pair = |(key, request)| Some((key, (request, responses.remove(&key)?)));
        Ok(Self(requests.into_iter().filter_map(pair).collect()))
    }

    pub fn get(&self, key: i16) -> Option<&(Message, Message)> {
        self.0.get(&key)
    }

    pub fn key_of(&self, api: &str) -> Option<i16> {
        let mut all = self.0.iter();
        all.find(|(_, pair)| pair.0.api == api).map(|(key, _)| *key)
    }
}

/// One file: whether it is a request, and what it says. `None` for what is neither.
pub fn parse(text: &str) -> anyhow::Result<Option<(bool, Message)>> {
    let lines = text.lines().filter(|l| !l.trim_start().starts_with("//"));
    let json: Value = serde_json::from_str(&lines.collect::<Vec<_>>().join("\n"))?;
    let request = match json["type"].as_str() {
        Some("request") => true,
        Some("response") => false,
        _ => return Ok(None),
    };
    // What Kafka no longer has is a name without fields.
    if json["validVersions"] == "none" {
        return Ok(None);
    }
    let name = json["name"].as_str().context("name")?;
    let api = name
        .trim_end_matches("Request")
        .trim_end_matches("Response");
    let mut common = BTreeMap::new();
    for one in json["commonStructs"].as_array().into_iter().flatten() {
        common.insert(one["name"].as_str().context("name")?, &one["fields"]);
    }
    Ok(Some((
        request,
        Message {
            api: api.to_owned(),
            key: json["apiKey"].as_i64().context("apiKey")?.try_into()?,
            flexible: versions(&json["flexibleVersions"])?,
            fields: fields(&json["fields"], &common)?,
        },
    )))
}

fn versions(value: &Value) -> anyhow::Result<Versions> {
    value.as_str().map_or(Ok(Versions::NONE), Versions::parse)
}

fn fields(list: &Value, common: &BTreeMap<&str, &Value>) -> anyhow::Result<Vec<Field>> {
    let list = list.as_array().context("fields")?;
    list.iter().map(|field| one(field, common)).collect()
}

fn one(field: &Value, common: &BTreeMap<&str, &Value>) -> anyhow::Result<Field> {
    let text = |name: &str| field[name].as_str();
    let kind = kind(text("type").context("type")?, field, common)?;
    let tag = match field["tag"].as_u64() {
        Some(tag) => Some((tag.try_into()?, versions(&field["taggedVersions"])?)),
        None => None,
    };
    Ok(Field {
        name: text("name").context("name")?.to_owned(),
        kind,
        versions: versions(&field["versions"])?,
        nullable: versions(&field["nullableVersions"])?,
        tag,
        default: field.get("default").cloned(),
    })
}

fn kind(name: &str, field: &Value, common: &BTreeMap<&str, &Value>) -> anyhow::Result<Kind> {
    Ok(match name {
        "bool" => Kind::Bool,
        "int8" => Kind::Int8,
        "int16" => Kind::Int16,
        "uint16" => Kind::Uint16,
        "int32" => Kind::Int32,
        "int64" => Kind::Int64,
        "float64" => Kind::Float64,
        "uuid" => Kind::Uuid,
        "string" => Kind::String,
        "bytes" => Kind::Bytes,
        "records" => Kind::Records,
        _ => match (
            name.strip_prefix("[]"),
            field.get("fields"),
            common.get(name).copied(),
        ) {
            (Some(element), ..) => Kind::Array(Box::new(kind(element, field, common)?)),
            (_, Some(list), _) | (_, _, Some(list)) => Kind::Struct(fields(list, common)?),
            _ => bail!("unknown type {name}"),
        },
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const EXAMPLE: &str = r#"// A comment
{ "apiKey": 77, "type": "request", "name": "ExampleRequest", "validVersions": "0-3", "flexibleVersions": "2+",
  "fields": [
    // Another
    { "name": "Name", "type": "string", "versions": "0+", "nullableVersions": "1+" },
    { "name": "Count", "type": "int32", "versions": "1+", "default": "-1" },
    { "name": "Topics", "type": "[]Topic", "versions": "0+", "fields": [
      { "name": "Id", "type": "uuid", "versions": "0+" },
      { "name": "Partitions", "type": "[]int32", "versions": "0+" } ] },
    { "name": "Extra", "type": "int64", "versions": "2+", "tag": 0, "taggedVersions": "2+", "default": "-1" }
  ] }"#;

    #[test]
    fn a_definition_is_read_with_its_comments_defaults_and_tags() {
        let (request, message) = parse(EXAMPLE).unwrap().unwrap();
        assert!(request);
        assert_eq!((message.api.as_str(), message.key), ("Example", 77));
        assert!(message.flexible.contains(2) && !message.flexible.contains(1));
        assert_eq!(message.fields[1].default, Some(Value::from("-1")));
        assert_eq!(message.fields[3].tag.unwrap().0, 0);
        assert!(
            matches!(&message.fields[2].kind, Kind::Array(kind) if matches!(**kind, Kind::Struct(_)))
        );
    }

    #[test]
    fn ranges_of_versions_are_read_in_each_of_their_forms() {
        let contains = |text: &str, version| Versions::parse(text).unwrap().contains(version);
        assert!(contains("3+", 9) && !contains("3+", 2));
        assert!(contains("3-5", 5) && !contains("3-5", 6));
        assert!(contains("4", 4) && !contains("4", 5));
        assert!(!contains("none", 0));
    }
}
