//! From a pod's status: since when it is ready, and whether it will not start by itself; pure.

use super::super::names;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodCondition};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// What a container waits with when nothing of it runs and nothing but a change will help.
const HOPELESS: [&str; 9] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];
/// How long a pod may lack a node before that counts: its volume may be on its way.
const SCHEDULING: SignedDuration = SignedDuration::from_secs(10);
/// From this many restarts on, a container that has not got through its start ends again and again.
const LOOPING: i32 = 2;
/// The end of what a container said before it ended; more does not fit into a message.
const LAST_WORDS: usize = 300;

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Since when the pod is ready; `None` if it is not.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    // Without a time it has been so for ever.
    let since = ready.last_transition_time.as_ref();
    Some(since.map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

/// Why the pod does not start and will not by itself; `None` if it runs, or is about to.
pub fn trouble(pod: &Pod, now: Timestamp) -> Option<String> {
    let status = pod.status.as_ref()?;
    let patient = |scheduled: &&PodCondition| {
        let since = scheduled.last_transition_time.as_ref().map(|time| time.0);
        since.is_none_or(|since| now.duration_since(since) >= SCHEDULING)
    };
    let unscheduled = condition(pod, "PodScheduled").filter(|c| c.status == "False");
    if let Some(scheduled) = unscheduled.filter(patient) {
        let why = scheduled.message.clone().unwrap_or_default();
        let reason = scheduled.reason.as_deref().unwrap_or("Unschedulable");
        return Some(format!("{reason}: {why}"));
    }
    if status.phase.as_deref() == Some("Failed") {
        let reason = status.reason.as_deref().unwrap_or("Failed");
        return Some(format!(
            "{reason}: {}",
            status.message.as_deref().unwrap_or_default()
        ));
    }
    let init = status.init_container_statuses.iter().flatten();
    let main = status.container_statuses.iter().flatten();
    for container in init.chain(main) {
        let Some((reason, message)) = hopeless(container) else {
            continue;
        };
        let whose = if container.name == names::CONTAINER {
            String::new()
        } else {
            format!("container {}: ", container.name)
        };
        return Some(format!("{whose}{reason}: {message}"));
    }
    None
}

/// The reason and its message.
fn hopeless(container: &ContainerStatus) -> Option<(String, String)> {
    let state = container.state.as_ref()?;
    let said = || container.last_state.as_ref().and_then(last_words);
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.clone().unwrap_or_default();
        let message = || waiting.message.clone().unwrap_or_default();
        let known = HOPELESS.contains(&reason.as_str());
        return known.then(|| (reason, said().unwrap_or_else(message)));
    }
    // Between two ends of a loop it runs for a moment, and would not be in trouble then.
    let starting = container.started == Some(false) || state.terminated.is_some();
    let looping = starting && container.restart_count >= LOOPING;
    let message = looping.then(|| last_words(state).or_else(said)).flatten()?;
    Some(("CrashLoopBackOff".to_owned(), message))
}

/// What a container that ended said last.
fn last_words(state: &ContainerState) -> Option<String> {
    let ended = state.terminated.as_ref()?;
    let text = ended.message.as_deref().unwrap_or_default().trim();
    let from = text.chars().count().saturating_sub(LAST_WORDS);
    let text: String = text.chars().skip(from).collect();
    let code = ended.exit_code;
    Some(match text.is_empty() {
        true => format!("it ended with code {code}"),
        false => format!("it ended with code {code}: {text}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: &str) -> Pod {
        serde_yaml::from_str(&format!("{{metadata: {{name: a}}, status: {status}}}")).unwrap()
    }

    #[test]
    fn a_pod_is_ready_since_its_condition_says_so() {
        let ready = pod(
            "{conditions: [{type: Ready, status: 'True', lastTransitionTime: '1970-01-01T00:01:00Z'}]}",
        );
        assert_eq!(ready_since(&ready).map(|t| t.as_second()), Some(60));
        assert_eq!(ready_since(&pod("{}")), None);
        let not = pod("{conditions: [{type: Ready, status: 'False'}]}");
        assert_eq!(ready_since(&not), None);
    }

    #[test]
    fn what_no_waiting_mends_is_told_and_what_is_under_way_is_not() {
        let cases = [
            ("{phase: Pending}", None),
            (
                "{phase: Pending, containerStatuses: [{name: broker, ready: false, restartCount: 0, image: a, imageID: a, state: {waiting: {reason: ContainerCreating}}}]}",
                None,
            ),
            (
                "{phase: Running, containerStatuses: [{name: broker, ready: false, restartCount: 4, image: a, imageID: a, state: {running: {}}, lastState: {terminated: {exitCode: 1}}}]}",
                None,
            ),
            (
                "{phase: Pending, conditions: [{type: PodScheduled, status: 'False', reason: Unschedulable, message: 0/3 nodes}]}",
                Some("Unschedulable: 0/3 nodes"),
            ),
            (
                "{phase: Pending, conditions: [{type: PodScheduled, status: 'False', lastTransitionTime: '1970-01-01T00:01:00Z', message: 0/3 nodes}]}",
                None,
            ),
            (
                "{phase: Pending, containerStatuses: [{name: broker, ready: false, restartCount: 0, image: a, imageID: a, state: {waiting: {reason: ImagePullBackOff, message: no such image}}}]}",
                Some("ImagePullBackOff: no such image"),
            ),
            (
                "{phase: Running, containerStatuses: [{name: broker, ready: false, restartCount: 3, image: a, imageID: a, state: {waiting: {reason: CrashLoopBackOff, message: back-off}}, lastState: {terminated: {exitCode: 1, message: 'bad key'}}}]}",
                Some("CrashLoopBackOff: it ended with code 1: bad key"),
            ),
            (
                "{phase: Running, containerStatuses: [{name: broker, ready: false, started: false, restartCount: 3, image: a, imageID: a, state: {running: {}}, lastState: {terminated: {exitCode: 1}}}]}",
                Some("CrashLoopBackOff: it ended with code 1"),
            ),
            (
                "{phase: Failed, reason: Evicted, message: low on disk}",
                Some("Evicted: low on disk"),
            ),
            (
                "{phase: Pending, containerStatuses: [{name: side, ready: false, restartCount: 0, image: a, imageID: a, state: {waiting: {reason: InvalidImageName, message: x}}}]}",
                Some("container side: InvalidImageName: x"),
            ),
        ];
        for (status, expected) in cases {
            let told = trouble(&pod(status), Timestamp::from_second(61).unwrap());
            assert_eq!(told.as_deref(), expected, "{status}");
        }
    }
}
