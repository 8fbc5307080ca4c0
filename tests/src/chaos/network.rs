//! A pod cut off from the network, in its own network namespace: no other pod notices but by its silence.
//!
//! Promise: dropped, the cut is healed, also if the pod's processes were replaced meanwhile.

use crate::cluster::Kube;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::process::Command;

/// Which packets are lost.
#[derive(Clone, Copy, Debug)]
pub enum Lost {
    /// Those to the pod, and those from it.
    Both,
    /// Those to the pod.
    In,
    /// Those from the pod.
    Out,
    /// Those from the pod to the API server.
    ToApi,
}

/// A cut, until it is dropped.
pub struct Cut(File);

impl Cut {
    /// Cuts a broker's pod off.
    pub fn of(kube: &Kube, broker: i32, lost: Lost) -> Self {
        let process = kube.process(broker).as_raw_nonzero();
        let namespace = File::open(format!("/proc/{process}/ns/net")).expect("a network namespace");
        let api = kube.api_service();
        let cut = Self(namespace);
        match lost {
            Lost::In => cut.drop_packets(&["INPUT", "!", "-i", "lo"]),
            Lost::Out => cut.drop_packets(&["OUTPUT", "!", "-o", "lo"]),
            Lost::ToApi => cut.drop_packets(&["OUTPUT", "-d", &api]),
            Lost::Both => {
                cut.drop_packets(&["INPUT", "!", "-i", "lo"]);
                cut.drop_packets(&["OUTPUT", "!", "-o", "lo"]);
            }
        }
        cut
    }

    fn drop_packets(&self, which: &[&str]) {
        let rule = [&["-A"], which, &["-j", "DROP"]].concat();
        self.iptables(&rule).expect("iptables");
    }

    fn iptables(&self, args: &[&str]) -> Result<(), String> {
        let namespace = format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd());
        let output = Command::new("nsenter")
            .args([&format!("--net={namespace}"), "iptables", "--wait"])
            .args(args)
            .output()
            .map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!(
                "{args:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // Nothing else has rules in there.
        if let Err(why) = self.iptables(&["--flush"]) {
            eprintln!("the cut cannot be healed: {why}");
        }
    }
}
