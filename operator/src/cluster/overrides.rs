//! Overrides of the brokers' pod template: merged into what the operator builds, and checked.
//!
//! Promises: a field that Kubernetes does not know is reported by its path, since the API server,
//! which keeps unknown fields in the Cluster, would drop it silently from the pod; what the
//! brokers' identity rests on cannot be overridden.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

/// How the elements of a list are told apart. Lists that are not named here are replaced.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "initContainers" | "volumes" | "env" | "imagePullSecrets" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "ports" => Some("containerPort"),
        _ => None,
    }
}

/// Lays `over` onto `base`: maps field by field, keyed lists element by element, the rest replaced.
pub fn merge(base: &mut Value, over: &Value) {
    merge_at("", base, over);
}

fn merge_at(name: &str, base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(key) {
                    Some(old) => merge_at(key, old, value),
                    None => {
                        base.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(base), Value::Array(over)) if merge_key(name).is_some() => {
            let key = merge_key(name).unwrap_or_default();
            for element in over {
                let same = base
                    .iter_mut()
                    .find(|old| old[key] == element[key] && !element[key].is_null());
                match same {
                    Some(old) => merge_at("", old, element),
                    None => base.push(element.clone()),
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// What is wrong with an override, each with its path.
pub fn problems(over: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    // `containers` is required in a pod spec, but an override may leave it out.
    let mut complete = serde_json::json!({"spec": {"containers": []}});
    merge(&mut complete, over);
    match serde_json::from_value::<PodTemplateSpec>(complete.clone()) {
        Err(error) => problems.push(format!("spec.podTemplate is not a pod template: {error}")),
        Ok(typed) => {
            let known = serde_json::to_value(typed).unwrap_or_default();
            let mut lost = Vec::new();
            unknown_fields("spec.podTemplate", &complete, &known, &mut lost);
            problems.extend(
                lost.into_iter()
                    .map(|path| format!("{path} is not a field of a pod template")),
            );
        }
    }
    reserved(over, &mut problems);
    problems
}

fn unknown_fields(path: &str, given: &Value, known: &Value, lost: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given {
                let path = format!("{path}.{key}");
                match known.get(key) {
                    Some(inner) => unknown_fields(&path, value, inner, lost),
                    None if value.is_null() => {}
                    None => lost.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                unknown_fields(&format!("{path}[{index}]"), given, known, lost);
            }
        }
        _ => {}
    }
}

fn reserved(over: &Value, problems: &mut Vec<String>) {
    let mut refuse = |path: &str| {
        problems.push(format!(
            "spec.podTemplate.{path} is set by the operator and cannot be overridden"
        ));
    };
    for label in super::names::selector("").keys() {
        if !over["metadata"]["labels"][label.as_str()].is_null() {
            refuse(&format!("metadata.labels[{label}]"));
        }
    }
    for annotation in [
        leasehold_crds::RACK_ANNOTATION,
        leasehold_crds::REVISION_ANNOTATION,
    ] {
        if !over["metadata"]["annotations"][annotation].is_null() {
            refuse(&format!("metadata.annotations[{annotation}]"));
        }
    }
    for field in [
        "hostname",
        "subdomain",
        "restartPolicy",
        "serviceAccountName",
        "terminationGracePeriodSeconds",
    ] {
        if !over["spec"][field].is_null() {
            refuse(&format!("spec.{field}"));
        }
    }
    let no_containers = Vec::new();
    for container in over["spec"]["containers"]
        .as_array()
        .unwrap_or(&no_containers)
    {
        if container["name"] == super::names::CONTAINER {
            for field in ["command", "args", "image"] {
                if !container[field].is_null() {
                    refuse(&format!("spec.containers[broker].{field}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(text: &str) -> Value {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn containers_merge_by_name_and_tolerations_are_replaced() {
        let mut base = yaml(
            "spec: {containers: [{name: broker, env: [{name: A, value: '1'}], image: x}], tolerations: [{key: a}]}",
        );
        merge(
            &mut base,
            &yaml(
                "spec: {containers: [{name: broker, env: [{name: B, value: '2'}]}, {name: side, image: y}], tolerations: [{key: b}]}",
            ),
        );
        assert_eq!(
            base,
            yaml(
                "spec: {containers: [{name: broker, env: [{name: A, value: '1'}, {name: B, value: '2'}], image: x}, {name: side, image: y}], tolerations: [{key: b}]}"
            )
        );
    }

    #[test]
    fn a_misspelt_field_is_named_by_its_path() {
        let found = problems(&yaml(
            "spec: {nodeSelecter: {a: b}, containers: [{name: side, imagee: y}]}",
        ));
        assert_eq!(
            found,
            [
                "spec.podTemplate.spec.containers[0].imagee is not a field of a pod template",
                "spec.podTemplate.spec.nodeSelecter is not a field of a pod template",
            ]
        );
        assert!(
            problems(&yaml(
                "{metadata: {annotations: {a: b}}, spec: {nodeSelector: {a: b}}}"
            ))
            .is_empty()
        );
    }

    #[test]
    fn a_field_of_the_wrong_type_is_refused() {
        assert!(problems(&yaml("spec: {nodeSelector: [a]}"))[0].contains("is not a pod template"));
    }

    #[test]
    fn identity_cannot_be_overridden() {
        let found = problems(&yaml(
            "spec: {hostname: x, containers: [{name: broker, args: [a]}]}",
        ));
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
