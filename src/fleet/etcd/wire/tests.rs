use proptest::prelude::*;

use super::*;

const HEADER: &str =
    r#""header":{"cluster_id":"14841639068965178418","member_id":"10276657743932975437","revision":"7","raft_term":"2"}"#;

fn answer(rest: &str) -> Vec<u8> {
    format!("{{{HEADER}{rest}}}").into_bytes()
}

#[test]
fn keys_and_prefixes_have_bounds() {
    for (keys, first, end) in [
        (Keys::One("a".into()), "a", ""),
        (Keys::Prefix("/p/".into()), "/p/", "/p0"),
        (Keys::Prefix(String::new()), "\0", "\0"),
        (Keys::Prefix("\u{7f}".into()), "\u{7f}", "\u{80}"),
    ] {
        let (from, to) = bounds(&keys);
        assert_eq!(from, first.as_bytes(), "{keys:?}");
        assert!(to == end.as_bytes() || to == [0x80], "{keys:?}");
    }
    assert_eq!(end_of(&[1, 0xff, 0xff]), [2]);
    assert_eq!(end_of(&[0xff]), [0], "the end of all keys");
}

#[test]
fn a_transaction_is_written_as_the_gateway_reads_it() {
    let written = txn(&Txn {
        compare: vec![Compare::absent(Keys::Prefix("/p/".into())), Compare::unchanged("a", 5)],
        success: vec![Op::Put { key: "a".into(), value: vec![0, 255], lease: -3 }, Op::Delete(Keys::One("b".into()))],
        failure: vec![Op::Range { keys: Keys::One("a".into()), limit: 2 }],
    });
    let read: Value = serde_json::from_str(&written).unwrap();
    let expected = json!({
        "compare": [
            {"key": "L3Av", "range_end": "L3Aw", "target": "CREATE", "result": "EQUAL", "create_revision": "0"},
            {"key": "YQ==", "target": "MOD", "result": "EQUAL", "mod_revision": "5"},
        ],
        "success": [
            {"request_put": {"key": "YQ==", "value": "AP8=", "lease": "-3"}},
            {"request_delete_range": {"key": "Yg=="}},
        ],
        "failure": [{"request_range": {"key": "YQ==", "limit": "2"}}],
    });
    assert_eq!(read, expected);
    let read: Value = serde_json::from_str(&range(&Keys::Prefix("/p/".into()), Some(b"/p/1"), 10, 4)).unwrap();
    assert_eq!(read, json!({"key": "L3AvMQA=", "range_end": "L3Aw", "limit": "10", "revision": "4"}));
}

#[test]
fn numbers_are_read_as_text_or_as_they_are_and_never_cut() {
    let read = |text: &str| serde_json::from_str::<Int<i64>>(text).map(|number| number.0).ok();
    assert_eq!(read("\"9223372036854775807\""), Some(i64::MAX));
    assert_eq!(read("-5"), Some(-5));
    for bad in ["\"9223372036854775808\"", "9223372036854775808", "1e3", "1.5", "\"\"", "\"1 \"", "null", "[]", "true"] {
        assert_eq!(read(bad), None, "{bad}");
    }
    assert!(serde_json::from_str::<Int<u64>>("-1").is_err() && serde_json::from_str::<Int<u64>>("\"-1\"").is_err());
}

#[test]
fn an_answer_is_whole_or_none() {
    let pair = r#"{"key":"YQ==","create_revision":"2","mod_revision":"3","version":"2","value":"AP8=","lease":"9"}"#;
    let read = range_answer(&answer(&format!(r#","kvs":[{pair}],"count":"1""#))).unwrap();
    let expected = KeyValue { key: "a".into(), value: vec![0, 255], create_revision: 2, mod_revision: 3, version: 2, lease: 9 };
    assert_eq!((read.range.keys, read.range.more, read.last), (vec![expected], false, Some(b"a".to_vec())));
    assert_eq!(range_answer(&answer("")).map(|read| read.range.header.revision), Ok(7));
    for bad in [r#","kvs":[],"count":"1""#, r#","more":true"#, r#","kvs":[{"key":"!"}],"count":"1""#, r#","count":-1"#] {
        assert!(range_answer(&answer(bad)).is_err(), "{bad}");
    }
    let asked = Txn { success: vec![Op::put("a", "")], failure: vec![Op::Delete(Keys::One("a".into()))], ..Txn::default() };
    let done = |rest: &str| txn_answer(&asked, &answer(rest)).map(|answer| answer.done);
    assert_eq!(done(r#","succeeded":true,"responses":[{"response_put":{}}]"#), Ok(vec![Done::Put]));
    assert_eq!(done(r#","responses":[{"response_delete_range":{"deleted":"4"}}]"#), Ok(vec![Done::Deleted(4)]));
    for bad in ["", r#","succeeded":true,"responses":[{}]"#, r#","responses":[{"response_put":{}}]"#] {
        assert!(done(bad).is_err(), "{bad}");
    }
    assert!(lease_answer(&answer("")).is_err() && lease_answer(&answer(r#","ID":"3","TTL":"5""#)).is_ok());
    assert!(token_answer(br#"{"token":"a b"}"#).is_err() && token_answer(b"{}").is_err());
}

#[test]
fn errors_are_read_where_they_are_etcds() {
    let told = told_answer(br#"{"error":"x","message":"etcdserver: no leader","code":14}"#).unwrap();
    assert_eq!(told, Told { code: 14, message: "etcdserver: no leader".into() });
    for other in [&b"Not Found\n"[..], b"{}", b"{\"code\":\"x\"}", b"[]", b"{\"message\":\"x\"}"] {
        assert_eq!(told_answer(other), None);
    }
    let line =
        br#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader","http_status":"Service Unavailable"}}"#;
    assert_eq!(watch_message(line).unwrap().unwrap_err(), told);
}

proptest! {
    #[test]
    fn no_answer_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..400, flip in any::<u8>()) {
        let real = answer(
            r#","succeeded":true,"responses":[{"response_put":{"header":{"revision":"2"}}},{"response_range":{"kvs":[{"key":"YQ==",
            "mod_revision":"2"}],"count":"1"}}],"result":{"header":{"cluster_id":"1"},"watch_id":"1","events":[{"kv":{"key":"YQ=="}}]}"#,
        );
        let mut changed = real.clone();
        if let Some(byte) = changed.get_mut(cut) {
            *byte ^= flip;
        }
        let asked = Txn { success: vec![Op::put("a", ""), Op::Range { keys: Keys::One("a".into()), limit: 0 }], ..Txn::default() };
        for answer in [&bytes[..], &changed, &real[..cut.min(real.len())]] {
            let _ = range_answer(answer);
            let _ = txn_answer(&asked, answer);
            let _ = lease_answer(answer);
            let _ = kept_answer(answer);
            let _ = revoked_answer(answer);
            let _ = status_answer(answer);
            let _ = token_answer(answer);
            let _ = told_answer(answer);
            let _ = watch_message(answer);
        }
    }
}
