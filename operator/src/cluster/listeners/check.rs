//! What `spec.listeners` must satisfy; pure. The CRD says the same, to whoever applies through an API server that
//! knows this CRD.

use super::super::names::{CLIENT_PORT, HTTP_PORT, INTERNAL_PORT};
use super::{BROKER, DEFAULT, Further, Listeners};
use leasehold_crds::{ListenerKind, ListenerSpec};
use leasehold_types::ListenerName;

/// The listeners, or all that is wrong with them.
pub fn check(specs: &[ListenerSpec]) -> Result<Listeners, Vec<String>> {
    let mut problems = Vec::new();
    let mut named = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let field = format!("spec.listeners[{index}]");
        problems.extend(about(spec).into_iter().map(|text| format!("{field}{text}")));
        match ListenerName::parse(&spec.name) {
            Some(name) => named.push(Further {
                name,
                spec: spec.clone(),
            }),
            None => problems.push(format!(
                "{field}.name: {:?} is not at most {} lower-case letters, digits and '-', beginning with a letter",
                spec.name,
                ListenerName::LONGEST
            )),
        }
        let earlier = &specs[..index];
        if earlier.iter().any(|other| other.name == spec.name) {
            problems.push(format!(
                "{field}.name: there are two listeners {}",
                spec.name
            ));
        }
        if earlier.iter().any(|other| other.port == spec.port) {
            problems.push(format!(
                "{field}.port: another listener has the port {}, and each needs one of its own on the brokers",
                spec.port
            ));
        }
    }
    let main = named
        .iter()
        .position(|listener| listener.spec.kind == ListenerKind::Internal);
    let main = main.map(|index| named.remove(index));
    if main.is_none() {
        let taken = |spec: &&ListenerSpec| spec.name == DEFAULT || spec.port == CLIENT_PORT;
        problems.extend(specs.iter().filter(taken).map(|spec| {
            format!(
                "spec.listeners: without a listener of type Internal there is one besides, {DEFAULT} on port {CLIENT_PORT}: give {} another name or port, or add a listener of type Internal",
                spec.name
            )
        }));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let (name, port) = match main {
        Some(main) => (main.spec.name, main.spec.port),
        None => (DEFAULT.to_owned(), CLIENT_PORT),
    };
    Ok(Listeners {
        main: name,
        main_port: port,
        further: named,
        asked: !specs.is_empty(),
    })
}

/// What is wrong with one of them by itself.
fn about(spec: &ListenerSpec) -> Vec<String> {
    let mut problems = Vec::new();
    if !(1024..=65_535).contains(&spec.port) || [HTTP_PORT, INTERNAL_PORT].contains(&spec.port) {
        problems.push(format!(
            ".port: {} is not between 1024 and 65535, or one of {HTTP_PORT} and {INTERNAL_PORT}, which brokers use themselves",
            spec.port
        ));
    }
    let outside = spec.kind != ListenerKind::Internal;
    let given = [
        ("host", spec.host.is_some()),
        (
            "externalTrafficPolicy",
            spec.external_traffic_policy.is_some(),
        ),
        ("annotations", !spec.annotations.is_empty()),
    ];
    for (field, _) in given.iter().filter(|(_, given)| *given && !outside) {
        problems.push(format!(
            ".{field}: only listeners of type NodePort or LoadBalancer have it"
        ));
    }
    if spec.load_balancer_class.is_some() && spec.kind != ListenerKind::LoadBalancer {
        problems.push(".loadBalancerClass: only listeners of type LoadBalancer have it".to_owned());
    }
    if let Some(host) = &spec.host {
        if !is_host(&host.replace(BROKER, "0")) {
            problems.push(format!(
                ".host: {host:?} is neither a host name nor an IP address; it carries no port"
            ));
        }
        if spec.kind == ListenerKind::LoadBalancer && !host.contains(BROKER) {
            problems.push(format!(
                ".host: {host:?} would stand for every broker's load balancer: put {BROKER} into it, as in broker-{BROKER}.kafka.example.com, or leave it out"
            ));
        }
    }
    problems
}

/// Whether it can be one. An IPv6 address has colons; a port after a name is the common mistake.
fn is_host(text: &str) -> bool {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 253
        && text.chars().all(legal)
        && ends(text.chars().next())
        && ends(text.chars().last())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Listeners as a user writes them.
    pub(crate) fn specs(yaml: &str) -> Vec<ListenerSpec> {
        serde_yaml::from_str(yaml).unwrap()
    }

    fn problems(yaml: &str) -> String {
        check(&specs(yaml)).unwrap_err().join("; ")
    }

    #[test]
    fn without_any_there_is_the_one_that_always_was() {
        let listeners = check(&[]).unwrap();
        let main = (listeners.main.as_str(), listeners.main_port);
        assert_eq!(main, ("internal", 9092));
        assert!(listeners.further.is_empty() && !listeners.asked);
    }

    #[test]
    fn the_first_internal_one_is_the_main_one_and_all_others_are_further() {
        let listeners = check(&specs(
            "[{name: out, type: NodePort, port: 9094}, {name: a, type: Internal, port: 9095}, {name: b, type: Internal, port: 9096}]",
        ))
        .unwrap();
        assert_eq!((listeners.main.as_str(), listeners.main_port), ("a", 9095));
        let further: Vec<&str> = listeners.further.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(further, ["out", "b"]);
        let external: Vec<&str> = listeners.external().map(|f| f.name.as_str()).collect();
        assert_eq!(external, ["out"]);
    }

    #[test]
    fn every_problem_names_its_field_and_the_way_out() {
        let all = problems(
            "[{name: Out, type: NodePort, port: 9094}, {name: b, type: Internal, port: 9094, host: x}, {name: b, type: LoadBalancer, port: 8080, host: kafka.example.com}, {name: c, type: NodePort, port: 80, host: 'h:9092', loadBalancerClass: x}]",
        );
        for part in [
            "spec.listeners[0].name: \"Out\"",
            "spec.listeners[1].port: another listener has the port 9094",
            "spec.listeners[1].host: only listeners of type",
            "spec.listeners[2].name: there are two listeners b",
            "spec.listeners[2].port: 8080",
            "spec.listeners[2].host: \"kafka.example.com\" would stand for every broker",
            "spec.listeners[3].port: 80 ",
            "spec.listeners[3].host: \"h:9092\"",
            "spec.listeners[3].loadBalancerClass",
        ] {
            assert!(all.contains(part), "{part} is not in: {all}");
        }
    }

    #[test]
    fn the_default_listeners_name_and_port_are_taken_only_while_it_is_there() {
        let text = problems("[{name: out, type: NodePort, port: 9092}]");
        assert!(
            text.contains("there is one besides, internal on port 9092"),
            "{text}"
        );
        let text = problems("[{name: internal, type: NodePort, port: 9094}]");
        assert!(text.contains("give internal another name"), "{text}");
        let both =
            "[{name: out, type: NodePort, port: 9092}, {name: in, type: Internal, port: 9094}]";
        assert_eq!(check(&specs(both)).unwrap().main_port, 9094);
    }

    #[test]
    fn hosts_are_names_or_addresses_of_either_kind() {
        for good in ["kafka.example.com", "10.0.0.7", "fd00::7", "a"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a_b", "a:9092", "[fd00::7]", "a/b", "a b"] {
            assert!(!is_host(bad), "{bad}");
        }
    }
}
