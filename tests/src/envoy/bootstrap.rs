//! Adapts the example configuration of Envoy to the processes of one test.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use crate::workspace_root;

/// A configuration of Envoy that is being changed. It is written as JSON, which Envoy reads too.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    config: Value,
}

impl Bootstrap {
    /// The configuration that the repository shows to users, `envoy/envoy.yaml`.
    ///
    /// # Errors
    /// When it cannot be read or is not YAML.
    pub fn load() -> Result<Self> {
        let path = workspace_root().join("envoy/envoy.yaml");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("parsing {}", path.display()))
    }

    /// A configuration from YAML.
    ///
    /// # Errors
    /// When it is not YAML.
    pub fn parse(yaml: &str) -> Result<Self> {
        Ok(Self { config: serde_saphyr::from_str(yaml)? })
    }

    /// Lets the system pick the ports of the listener and of the admin interface.
    ///
    /// # Errors
    /// When there is no listener.
    pub fn on_free_ports(mut self) -> Result<Self> {
        set(&mut self.config, "", "admin", json!({ "address": loopback(0) }))?;
        self.listener_port(0)
    }

    /// Sets the port of the first listener, on the loopback address.
    ///
    /// # Errors
    /// When there is no listener.
    pub fn listener_port(mut self, port: u16) -> Result<Self> {
        set(&mut self.config, "/static_resources/listeners/0", "address", loopback(port))?;
        Ok(self)
    }

    /// Points the cluster `application` at an address.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub fn upstream(self, address: SocketAddr) -> Result<Self> {
        self.endpoint("application", address)
    }

    /// Points the cluster `issuer` at an address.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub fn issuer(self, address: SocketAddr) -> Result<Self> {
        self.endpoint("issuer", address)
    }

    /// Points a cluster at one address.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub fn endpoint(mut self, cluster: &str, address: SocketAddr) -> Result<Self> {
        let clusters = self.config.pointer("/static_resources/clusters").and_then(Value::as_array);
        let place = clusters.into_iter().flatten().position(|candidate| candidate["name"] == cluster);
        let place = place.with_context(|| format!("the configuration has no cluster {cluster:?}"))?;
        let socket = json!({ "address": address.ip().to_string(), "port_value": address.port() });
        let endpoints =
            json!([{ "lb_endpoints": [{ "endpoint": { "address": { "socket_address": socket } } }] }]);
        let parent = format!("/static_resources/clusters/{place}/load_assignment");
        set(&mut self.config, &parent, "endpoints", endpoints)?;
        Ok(self)
    }

    /// Sets the file of the filter's module.
    ///
    /// # Errors
    /// When nothing names a file `tollgate_filter.wasm`.
    pub fn module(mut self, path: &Path) -> Result<Self> {
        let file = path.to_str().context("the module's path is not UTF-8")?;
        let changed = for_each_object(&mut self.config, &mut |object| {
            let Some(name) = object.get_mut("filename") else { return 0 };
            let is_module = name.as_str().is_some_and(|name| name.ends_with("tollgate_filter.wasm"));
            if is_module {
                *name = json!(file);
            }
            u32::from(is_module)
        });
        ensure!(changed > 0, "the configuration names no tollgate_filter.wasm");
        Ok(self)
    }

    /// Sets the configuration that is handed to the filter.
    ///
    /// # Errors
    /// When there is no wasm filter.
    pub fn plugin_config(self, plugin: &Value) -> Result<Self> {
        self.plugin_text(&plugin.to_string())
    }

    /// Sets the configuration that is handed to the filter to any text, valid or not.
    ///
    /// # Errors
    /// When there is no wasm filter.
    pub fn plugin_text(mut self, text: &str) -> Result<Self> {
        let changed = for_each_object(&mut self.config, &mut |object| {
            if !object.contains_key("vm_config") {
                return 0;
            }
            let value = json!({ "@type": "type.googleapis.com/google.protobuf.StringValue", "value": text });
            object.insert("configuration".to_owned(), value);
            1
        });
        ensure!(changed > 0, "the configuration has no wasm filter");
        Ok(self)
    }

    /// Changes anything else.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    /// Writes it for Envoy; the name must end in `.json`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.config)?;
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

fn loopback(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

/// Puts `value` into the map at the JSON pointer `parent`.
fn set(config: &mut Value, parent: &str, key: &str, value: Value) -> Result<()> {
    let map = config.pointer_mut(parent).and_then(Value::as_object_mut);
    map.with_context(|| format!("the configuration has no map at {parent:?}"))?.insert(key.to_owned(), value);
    Ok(())
}

/// Visits every map in `value` and adds up what the visits answer.
fn for_each_object(value: &mut Value, visit: &mut impl FnMut(&mut Map<String, Value>) -> u32) -> u32 {
    match value {
        Value::Object(object) => {
            let here = visit(object);
            object.values_mut().fold(here, |sum, child| sum + for_each_object(child, visit))
        }
        Value::Array(items) => items.iter_mut().fold(0, |sum, item| sum + for_each_object(item, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WASM: &str = r#"
static_resources:
  listeners:
    - address: { socket_address: { address: 0.0.0.0, port_value: 8000 } }
      http_filters:
        - typed_config:
            config:
              vm_config: { code: { local: { filename: /etc/envoy/tollgate_filter.wasm } } }
              configuration: { value: "{}" }
  clusters:
    - { name: application, load_assignment: { cluster_name: application } }
    - { name: issuer, load_assignment: { cluster_name: issuer } }
"#;

    #[test]
    fn each_token_is_replaced_where_it_stands() {
        let (upstream, issuer) =
            (SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2)));
        let bootstrap = Bootstrap::parse(WASM).unwrap().on_free_ports().unwrap();
        let bootstrap = bootstrap.upstream(upstream).unwrap().issuer(issuer).unwrap();
        let bootstrap = bootstrap.module(Path::new("/built/probe.wasm")).unwrap();
        let config = bootstrap.plugin_config(&json!({ "rules": [] })).unwrap().config;
        let at = |pointer: &str| config.pointer(pointer).unwrap_or_else(|| panic!("nothing at {pointer}"));
        let resources = "/static_resources";
        let plugin = format!("{resources}/listeners/0/http_filters/0/typed_config/config");
        let port = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value";
        assert_eq!(at("/admin/address/socket_address/port_value"), 0);
        assert_eq!(at(&format!("{resources}/listeners/0/address/socket_address/port_value")), 0);
        assert_eq!(at(&format!("{resources}/clusters/0{port}")), 1);
        assert_eq!(at(&format!("{resources}/clusters/1{port}")), 2);
        assert_eq!(at(&format!("{plugin}/vm_config/code/local/filename")), "/built/probe.wasm");
        assert_eq!(at(&format!("{plugin}/configuration/value")), r#"{"rules":[]}"#);
    }

    #[test]
    fn example_for_users_has_every_place_that_is_replaced() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let bootstrap = Bootstrap::load().unwrap().on_free_ports().unwrap();
        let bootstrap = bootstrap.upstream(address).unwrap().issuer(address).unwrap();
        bootstrap.module(Path::new("/m.wasm")).unwrap().plugin_config(&json!({})).unwrap();
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let nothing = || Bootstrap::parse("{}").unwrap();
        nothing().on_free_ports().unwrap_err();
        nothing().upstream(SocketAddr::from(([127, 0, 0, 1], 1))).unwrap_err();
        nothing().module(Path::new("/m.wasm")).unwrap_err();
        nothing().plugin_config(&json!({})).unwrap_err();
    }
}
