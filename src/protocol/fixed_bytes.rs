//! The wire, byte for byte: what every architecture must write and read alike. Numbers are beyond 32
//! bits wherever they may be, so that a 32-bit or a big-endian machine cannot pass by luck.

use super::{
    ArtifactRecord, EventKind, EventsAnswer, FinishAnswer, FinishRequest, HeartbeatAnswer, OutputAnswer,
    Refusal, RefusalCode, StepStatus, StepSummary, TaskEvent, TaskStatus, TestTimings, UploadAnswer,
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// 2^53 + 1 is lost by whoever takes the way over a double; the others are about 4 GiB.
const BEYOND_DOUBLE: u64 = 9_007_199_254_740_993;

#[track_caller]
fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, text: &str) {
    assert_eq!(serde_json::to_vec(value).expect("it is plain data"), text.as_bytes());
    assert_eq!(&serde_json::from_slice::<T>(text.as_bytes()).expect("it was written so"), value);
}

#[test]
fn offsets_and_lengths() {
    same(
        &OutputAnswer { offset: BEYOND_DOUBLE, durable_to: 0, cancel: true },
        r#"{"offset":9007199254740993,"durable_to":0,"cancel":true}"#,
    );
    same(&UploadAnswer { offset: 4_294_967_297, cancel: false }, r#"{"offset":4294967297,"cancel":false}"#);
    same(
        &ArtifactRecord {
            path: "größe/a".into(),
            sha256: SUM.into(),
            length: 1_099_511_627_777,
            step: 67_305_985,
        },
        &format!(r#"{{"path":"größe/a","sha256":"{SUM}","length":1099511627777,"step":67305985}}"#),
    );
    let gap = Refusal { offset: Some(u64::MAX), ..Refusal::coded(RefusalCode::Gap, "a gap") };
    same(&gap, r#"{"message":"a gap","code":"gap","offset":18446744073709551615}"#);
}

#[test]
fn events_and_their_numbers() {
    let finished = EventKind::StepFinished {
        step: 258,
        status: StepStatus::Failed,
        exit_code: Some(-16_909_060),
        signal: Some(15),
        message: None,
        output_bytes: 1_099_511_627_777,
        output_times: vec![(0, 1_700_000_000_000), (4_294_967_296, 1_700_000_000_100)],
    };
    same(
        &TaskEvent { number: 72_623_859_790_382_856, at_ms: 1_700_000_000_123, kind: finished },
        r#"{"number":72623859790382856,"at_ms":1700000000123,"event":"step_finished","step":258,"status":"failed","exit_code":-16909060,"signal":15,"output_bytes":1099511627777,"output_times":[[0,1700000000000],[4294967296,1700000000100]]}"#,
    );
    same(
        &EventsAnswer { next: 72_623_859_790_382_857, cancel: false },
        r#"{"next":72623859790382857,"cancel":false}"#,
    );
    same(
        &HeartbeatAnswer { cancel: false, lease_seconds: 16_909_060 },
        r#"{"cancel":false,"lease_seconds":16909060}"#,
    );
}

#[test]
fn the_end_of_a_task() {
    let step = StepSummary { step: 1, length: 4_294_967_296, sha256: SUM.into() };
    same(
        &FinishRequest { status: TaskStatus::Timedout, message: None, events: 513, steps: vec![step] },
        &format!(
            r#"{{"status":"timedout","events":513,"steps":[{{"step":1,"length":4294967296,"sha256":"{SUM}"}}]}}"#
        ),
    );
    same(
        &FinishAnswer::Incomplete { next_event: 4_294_967_298, steps: vec![(16_909_060, 4_294_967_299)] },
        r#"{"answer":"incomplete","next_event":4294967298,"steps":[[16909060,4294967299]]}"#,
    );
}

#[test]
fn seconds_of_tests() {
    let filename = [("größe/a".to_owned(), 0.015_625), ("b".to_owned(), 67_305_985.25)].into();
    same(
        &TestTimings { filename, ..TestTimings::default() },
        r#"{"filename":{"b":67305985.25,"größe/a":0.015625}}"#,
    );
}
