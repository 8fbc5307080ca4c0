//! The generated files: which they are, what is in them.

use crate::{Cluster, Topic};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// One generated file, its path relative to the repository's root.
pub struct Generated {
    pub path: &'static str,
    pub text: String,
}

const HEADER: &str =
    "# Generated from the types in crds/src: cargo run -p leasehold-crds -- --write\n";

/// In the chart: a second release in the same Kubernetes cluster leaves the CRDs to the first.
const IF: &str = "{{- if .Values.crds.install }}\n";
const END: &str = "{{- end }}\n";

/// All generated files.
pub fn generated() -> Result<Vec<Generated>, serde_yaml::Error> {
    let mut files = Vec::new();
    for (crd, plain, chart) in [
        (
            Cluster::crd(),
            "crds/cluster.yaml",
            "charts/leasehold/templates/crd-cluster.yaml",
        ),
        (
            Topic::crd(),
            "crds/topic.yaml",
            "charts/leasehold/templates/crd-topic.yaml",
        ),
    ] {
        files.push(Generated {
            path: plain,
            text: format!("{HEADER}{}", serde_yaml::to_string(&crd)?),
        });
        files.push(Generated {
            path: chart,
            text: format!("{HEADER}{IF}{}{END}", serde_yaml::to_string(&kept(crd))?),
        });
    }
    Ok(files)
}

/// The chart applies the CRDs as templates, so that they are upgraded with the release, and leaves
/// them at an uninstall: deleting a CRD deletes every object of its kind.
fn kept(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    crd.metadata
        .annotations
        .get_or_insert_default()
        .insert("helm.sh/resource-policy".to_owned(), "keep".to_owned());
    crd
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_generated_files_are_current_and_small() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for file in generated().unwrap() {
            let on_disk = std::fs::read_to_string(root.join(file.path)).unwrap_or_default();
            assert!(
                on_disk == file.text,
                "{} is not current: run `cargo run -p leasehold-crds -- --write`",
                file.path
            );
            assert!(
                file.text.len() < 100_000,
                "{} has grown to {}",
                file.path,
                file.text.len()
            );
            let text = file.text.replace(IF, "").replace(END, "");
            assert!(
                !text.contains("{{"),
                "{} would be taken for a Helm template",
                file.path
            );
        }
    }

    #[test]
    fn every_list_map_and_string_that_a_user_writes_is_bounded() {
        fn walk(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
            let kind = schema["type"].as_str().unwrap_or_default();
            let bounded = match kind {
                "string" => {
                    !schema["maxLength"].is_null()
                        || !schema["enum"].is_null()
                        || !schema["format"].is_null()
                }
                "array" => !schema["maxItems"].is_null(),
                "object" if !schema["additionalProperties"].is_null() => {
                    !schema["maxProperties"].is_null()
                }
                _ => true,
            };
            if !bounded {
                found.push(path.to_owned());
            }
            if let Some(properties) = schema["properties"].as_object() {
                for (name, inner) in properties {
                    walk(&format!("{path}.{name}"), inner, found);
                }
            }
            walk_if(path, &schema["items"], found);
        }
        fn walk_if(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
            if schema.is_object() {
                walk(&format!("{path}[]"), schema, found);
            }
        }
        let mut found = Vec::new();
        for crd in [Cluster::crd(), Topic::crd()] {
            let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
            walk(&crd.spec.names.kind, &schema["openAPIV3Schema"], &mut found);
        }
        assert!(found.is_empty(), "without a bound: {found:?}");
    }
}
