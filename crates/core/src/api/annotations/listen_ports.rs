//! `listen-ports`: the ports on which an Ingress is served.

use std::collections::BTreeMap;

use super::json::{Document, Node};
use crate::model::ListenerProtocol;

/// A JSON array of objects `{protocol: port}`, such as `[{"HTTP":80},{"HTTPS":443}]`. The protocol is spelt exactly `HTTP` or `HTTPS`, the
/// port is between 1 and 65535, at least one port is named, and of two entries for one port the later one wins.
pub fn parse_listen_ports(value: &str) -> Result<BTreeMap<u16, ListenerProtocol>, String> {
    let document = Document::parse(value)?;
    let mut ports = BTreeMap::new();
    for entry in Node::root(&document).items()? {
        for (name, port) in entry.members()? {
            let protocol = match name {
                "HTTP" => ListenerProtocol::Http,
                "HTTPS" => ListenerProtocol::Https,
                other => {
                    return Err(format!("the protocol `{}` is neither `HTTP` nor `HTTPS`", super::shorten(other)));
                }
            };
            let number = port.i32()?;
            match u16::try_from(number) {
                Ok(number @ 1..) => ports.insert(number, protocol),
                _ => return Err(format!("the port {number} is not between 1 and 65535")),
            };
        }
    }
    if ports.is_empty() { Err("it names no port".into()) } else { Ok(ports) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ListenerProtocol::{Http, Https};
    use proptest::prelude::*;

    #[test]
    fn ports() {
        type Expected = Result<&'static [(u16, ListenerProtocol)], &'static str>;
        let cases: &[(&str, Expected)] = &[
            (r#"[{"HTTP":80}]"#, Ok(&[(80, Http)])),
            (r#"[{"HTTP":80},{"HTTPS":443}]"#, Ok(&[(80, Http), (443, Https)])),
            (r#"[{"HTTPS":443,"HTTP":80}]"#, Ok(&[(80, Http), (443, Https)])),
            (r#" [ {"HTTP": 8080}, {"HTTP":1}, {"HTTPS":65535} ] "#, Ok(&[(1, Http), (8080, Http), (65535, Https)])),
            (r#"[{"HTTP":80},{"HTTPS":80}]"#, Ok(&[(80, Https)])),
            (r#"[{"HTTP":80,"HTTP":81}]"#, Ok(&[(80, Http), (81, Http)])),
            ("[]", Err("it names no port")),
            ("null", Err("it names no port")),
            ("[{}]", Err("it names no port")),
            ("", Err("it is not JSON: EOF while parsing a value at line 1 column 0")),
            ("80", Err("the value is a whole number, not an array")),
            (r#"{"HTTP":80}"#, Err("the value is an object, not an array")),
            ("[80]", Err("[0] is a whole number, not an object")),
            (r#"[{"http":80}]"#, Err("the protocol `http` is neither `HTTP` nor `HTTPS`")),
            (r#"[{"TCP":80}]"#, Err("the protocol `TCP` is neither `HTTP` nor `HTTPS`")),
            (r#"[{"HTTP":"80"}]"#, Err("[0].HTTP is a string, not a whole number")),
            (r#"[{"HTTP":80.0}]"#, Err("[0].HTTP is a number, not a whole number")),
            (r#"[{"HTTP":0}]"#, Err("the port 0 is not between 1 and 65535")),
            (r#"[{"HTTP":-80}]"#, Err("the port -80 is not between 1 and 65535")),
            (r#"[{"HTTP":80},{"HTTPS":65536}]"#, Err("the port 65536 is not between 1 and 65535")),
        ];
        for (value, expected) in cases {
            let expected = expected.map(|ports| ports.iter().copied().collect()).map_err(String::from);
            assert_eq!(parse_listen_ports(value), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn written_ports_come_back(ports in proptest::collection::btree_map(1..=u16::MAX, any::<bool>(), 1..6)) {
            let ports = ports.into_iter().map(|(port, tls)| (port, if tls { Https } else { Http })).collect::<BTreeMap<_, _>>();
            let written = ports.iter().map(|(port, protocol)| format!(r#"{{"{protocol}":{port}}}"#)).collect::<Vec<_>>().join(",");
            prop_assert_eq!(parse_listen_ports(&format!("[{written}]")), Ok(ports));
        }
    }
}
