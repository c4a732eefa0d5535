//! Lints the Envoy configuration that we ship: what hardens it must still be there.

use serde_json::{Value, json};
use tollgate_tests::envoy::{Bootstrap, Envoy};
use tollgate_tests::module::{self, Variant};

/// What must stand where, and why it must.
const WANTED: [(&str, &str); 22] = [
    ("/normalize_path", "true"),
    ("/merge_slashes", "true"),
    ("/path_with_escaped_slashes_action", "\"REJECT_REQUEST\""),
    ("/use_remote_address", "true"),
    ("/request_headers_timeout", "\"10s\""),
    ("/request_timeout", "\"60s\""),
    ("/stream_idle_timeout", "\"60s\""),
    ("/max_request_headers_kb", "60"),
    ("/common_http_protocol_options/headers_with_underscores_action", "\"REJECT_REQUEST\""),
    ("/common_http_protocol_options/max_headers_count", "100"),
    ("/common_http_protocol_options/idle_timeout", "\"60s\""),
    ("/http_protocol_options/allow_chunked_length", "false"),
    ("/http2_protocol_options/max_concurrent_streams", "100"),
    // Nothing may change path or headers before the filter has decided on them.
    ("/http_filters/0/name", "\"tollgate\""),
    ("/http_filters/0/typed_config/config/failure_policy", "\"FAIL_RELOAD\""),
    ("/http_filters/0/typed_config/config/reload_config/backoff/base_interval", "\"0.25s\""),
    ("/http_filters/0/typed_config/config/vm_config/vm_id", "\"tollgate\""),
    ("/http_filters/0/typed_config/config/vm_config/runtime", "\"envoy.wasm.runtime.v8\""),
    (
        "/http_filters/0/typed_config/config/vm_config/environment_variables/host_env_keys",
        "[\"TOLLGATE_CREDENTIAL\"]",
    ),
    ("/http_filters/1/name", "\"envoy.filters.http.router\""),
    ("/route_config/virtual_hosts/0/routes/0/route/max_stream_duration/max_stream_duration", "\"300s\""),
    ("/stat_prefix", "\"edge\""),
];

/// What is wrong with a bootstrap, in words; empty when nothing is.
fn faults(bootstrap: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    let manager = bootstrap.pointer(manager).cloned().unwrap_or_default();
    for (place, wanted) in WANTED {
        let found = manager.pointer(place).map(ToString::to_string).unwrap_or_default();
        if found != wanted {
            faults.push(format!("{place} is {found:?} instead of {wanted}"));
        }
    }
    if bootstrap.to_string().contains("FAIL_OPEN") || bootstrap.to_string().contains("fail_open") {
        faults.push("something fails open".to_owned());
    }
    let clusters = bootstrap
        .pointer("/static_resources/clusters")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    match clusters.iter().find(|cluster| cluster["name"] == "issuer") {
        Some(issuer) => {
            if issuer.pointer("/health_checks/0/http_health_check/path") != Some(&json!("/readyz")) {
                faults.push("the issuer has no health check".to_owned());
            }
            if issuer.pointer("/outlier_detection/consecutive_5xx").is_none() {
                faults.push("the issuer has no outlier ejection".to_owned());
            }
        }
        None => faults.push("there is no cluster `issuer`".to_owned()),
    }
    if bootstrap.pointer("/admin/address/socket_address/address") != Some(&json!("127.0.0.1")) {
        faults.push("the admin interface is not local".to_owned());
    }
    if bootstrap.pointer("/overload_manager/actions/0").is_none() {
        faults.push("there is no overload manager".to_owned());
    }
    faults
}

fn shipped() -> Value {
    let mut shipped = Value::Null;
    let _ = Bootstrap::load().unwrap().edit(|bootstrap| shipped = bootstrap.clone());
    shipped
}

#[test]
fn the_shipped_bootstrap_is_hardened() {
    assert_eq!(faults(&shipped()), Vec::<String>::new());
}

#[test]
fn the_lint_sees_each_hardening_that_is_taken_away() {
    let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    for (place, _) in WANTED {
        let mut weakened = shipped();
        *weakened.pointer_mut(&format!("{manager}{place}")).unwrap() = Value::Null;
        assert_eq!(faults(&weakened).len(), 1, "{place}");
    }
    for place in [
        "/static_resources/clusters/1/health_checks",
        "/static_resources/clusters/1/outlier_detection",
        "/admin/address/socket_address/address",
        "/overload_manager",
    ] {
        let mut weakened = shipped();
        *weakened.pointer_mut(place).unwrap() = Value::Null;
        assert_eq!(faults(&weakened).len(), 1, "{place}");
    }
    let mut open = shipped();
    *open.pointer_mut(&format!("{manager}/http_filters/0/typed_config/config/failure_policy")).unwrap() =
        json!("FAIL_OPEN");
    assert_eq!(faults(&open).len(), 2);
}

#[test]
fn envoy_accepts_the_shipped_bootstrap_once_its_blanks_are_filled_in() {
    let module = module::build(Variant::Shipped).unwrap();
    let bootstrap = Bootstrap::load().unwrap().on_free_ports().unwrap().module(&module).unwrap();
    let bootstrap = bootstrap.edit(|bootstrap| {
        let place = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config/configuration/value";
        let text = bootstrap.pointer_mut(place).unwrap();
        let mut plugin: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        plugin["origin"]["trust_anchor"] = json!("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        plugin["origin"]["credential"] = json!("tge_x");
        *text = json!(plugin.to_string());
    });
    let output = Envoy::validate(&bootstrap).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
