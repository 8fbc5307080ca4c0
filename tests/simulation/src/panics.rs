//! Panics of simulated processes: tasks swallow them, a run must not.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static WATCHED: RefCell<bool> = const { RefCell::new(false) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on panics on this thread are kept for [`take`].
pub fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if WATCHED.with_borrow(|on| *on) {
                LAST.set(Some(panic.to_string().replace('\n', " ")));
            } else {
                before(panic);
            }
        }));
    });
    WATCHED.set(true);
    LAST.set(None);
}

/// The run is over: a panic on this thread is again what it is elsewhere.
pub fn leave() {
    WATCHED.set(false);
}

/// The panic that happened since, if there was one.
pub fn take() -> Option<String> {
    LAST.take()
}
