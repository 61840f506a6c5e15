//! The choice of a proxy for a connection, by HTTP_PROXY, HTTPS_PROXY and NO_PROXY, for AWS and for the API server. The
//! rules are Go's, and so aws-load-balancer-controller's: the HTTP libraries here have other ones, and each its own.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

/// The addresses that are on the node or next to it, never behind a proxy: the instance's metadata (EC2), and the
/// agent of EKS Pod Identity, by IPv4 and IPv6.
const NEVER: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// The address of a proxy: `http://` or `https://`, a host, perhaps a port, perhaps a user with a password, which are never shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProxyAddress(String);

impl ProxyAddress {
    fn read(variable: &'static str, text: &str) -> Result<Self, ProxyError> {
        let wrong = || ProxyError { variable, value: without_user(text) };
        let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = host_and_port(authority.rsplit('@').next().unwrap_or_default()).ok_or_else(wrong)?;
        let readable = !host.is_empty() && !url.contains(char::is_whitespace) && port.is_none_or(|port| port > 0);
        // An internationalised or otherwise unusual URL would be parsed differently by the HTTP client.
        if !readable || !url.is_ascii() || !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
            return Err(wrong());
        }
        Ok(Self(url))
    }

    /// The whole URL, with user and password.
    #[must_use]
    pub fn secret_url(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_user(&self.0))
    }
}

impl fmt::Debug for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A URL without what stands before the `@`.
fn without_user(url: &str) -> String {
    let start = url.find("://").map_or(0, |place| place + 3);
    match url[start..].rfind('@') {
        Some(end) => format!("{}…{}", &url[..start], &url[start + end..]),
        None => url.to_owned(),
    }
}

/// A variable that does not name a proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} is `{value}`, which is not the address of an HTTP proxy; write `http://host:port`")]
pub struct ProxyError {
    variable: &'static str,
    value: String,
}

/// An entry of NO_PROXY.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NoProxyEntry {
    Everything,
    Network(IpNet),
    Address(IpAddr, Option<u16>),
    /// Without the dot in front; `itself` is false where only the names below it are meant.
    Domain {
        name: String,
        itself: bool,
        port: Option<u16>,
    },
}

/// The proxy of each connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<ProxyAddress>,
    https: Option<ProxyAddress>,
    direct: Vec<NoProxyEntry>,
}

/// A host and a port, the host without the brackets of IPv6.
fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':').or(if port.is_empty() { Some("") } else { None })?)
        }
        // More than one colon is IPv6 without brackets.
        None if text.matches(':').count() == 1 => text.split_once(':')?,
        None => (text, ""),
    };
    Some((host, if port.is_empty() { None } else { Some(port.parse().ok()?) }))
}

impl NoProxyEntry {
    fn read(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::Everything);
        }
        if let Ok(network) = entry.parse() {
            return Some(Self::Network(network));
        }
        let (host, port) = host_and_port(entry)?;
        if let Ok(address) = host.parse() {
            return Some(Self::Address(address, port));
        }
        let name = host.strip_prefix('*').unwrap_or(host).to_ascii_lowercase();
        let itself = !name.starts_with('.');
        let name = name.trim_start_matches('.').trim_end_matches('.').to_owned();
        (!name.is_empty()).then_some(Self::Domain { name, itself, port })
    }

    fn contains(&self, host: &str, port: u16) -> bool {
        let address: Option<IpAddr> = host.parse().ok();
        let on = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        match self {
            Self::Everything => true,
            Self::Network(network) => address.is_some_and(|address| network.contains(&address)),
            Self::Address(own, wanted) => address == Some(*own) && on(wanted),
            Self::Domain { name, itself, port: wanted } => {
                let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                on(wanted) && (below || (*itself && host == name))
            }
        }
    }
}

impl Proxies {
    /// Reads the variables, each in capitals first and then in small letters; one that is empty counts as not set.
    ///
    /// # Errors
    /// When one names something that is no proxy.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ProxyError> {
        let get = |name: &str| {
            let set = |name: &str| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
            set(name).or_else(|| set(&name.to_ascii_lowercase()))
        };
        let proxy = |name: &'static str| get(name).map(|text| ProxyAddress::read(name, &text)).transpose();
        let mut direct: Vec<NoProxyEntry> = get("NO_PROXY")
            .iter()
            .flat_map(|text| text.split(','))
            .filter_map(|e| NoProxyEntry::read(e.trim()))
            .collect();
        // The API server, by the address that pods have for it.
        direct.extend(get("KUBERNETES_SERVICE_HOST").as_deref().and_then(NoProxyEntry::read));
        Ok(Self { http: proxy("HTTP_PROXY")?, https: proxy("HTTPS_PROXY")?, direct })
    }

    /// [`Self::read`] from the process's environment.
    ///
    /// # Errors
    /// As there.
    pub fn of_environment() -> Result<Self, ProxyError> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// The proxy for a URL, if there is one.
    #[must_use]
    pub fn for_url(&self, url: &str) -> Option<&ProxyAddress> {
        let (scheme, rest) = url.split_once("://")?;
        let (proxy, usual) = match scheme.to_ascii_lowercase().as_str() {
            "https" => (self.https.as_ref()?, 443),
            "http" => (self.http.as_ref()?, 80),
            _ => return None,
        };
        let authority = rest.split(['/', '?', '#']).next()?;
        let (host, port) = host_and_port(authority.rsplit('@').next()?)?;
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        let here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        if here || address.is_some_and(|address| NEVER.contains(&address)) {
            return None;
        }
        let port = port.unwrap_or(usual);
        (!self.direct.iter().any(|entry| entry.contains(&host, port))).then_some(proxy)
    }

    /// The proxies that there are, each once.
    pub fn all(&self) -> impl Iterator<Item = &ProxyAddress> {
        let second = self.https.as_ref().filter(|https| self.http.as_ref() != Some(*https));
        self.http.iter().chain(second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, ProxyError> {
        let variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Proxies::read(|name| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
    }

    fn through(variables: &[(&str, &str)], url: &str) -> Option<String> {
        proxies(variables).unwrap().for_url(url).map(ToString::to_string)
    }

    const ELB: &str = "https://elasticloadbalancing.us-west-2.amazonaws.com/";
    const PROXY: (&str, &str) = ("HTTPS_PROXY", "http://proxy:3128");

    #[test]
    fn the_variables_are_read_in_both_cases_of_letters_and_by_scheme() {
        let some = |proxy: &str| Some(proxy.to_owned());
        let plain = "http://moto:5000/";
        for (variables, https, http) in [
            (&[][..], None, None),
            (&[PROXY][..], some("http://proxy:3128"), None),
            (&[("https_proxy", "http://small:1")][..], some("http://small:1"), None),
            (&[PROXY, ("https_proxy", "http://small:1")][..], some("http://proxy:3128"), None),
            (&[("HTTPS_PROXY", " "), ("https_proxy", "small:1")][..], some("http://small:1"), None),
            (&[("HTTP_PROXY", "http://proxy")][..], None, some("http://proxy")),
            (&[("http_proxy", "https://p:1"), PROXY][..], some("http://proxy:3128"), some("https://p:1")),
            (&[("ALL_PROXY", "http://proxy:3128")][..], None, None),
        ] {
            assert_eq!((through(variables, ELB), through(variables, plain)), (https, http), "{variables:?}");
        }
    }

    #[test]
    fn some_addresses_are_never_proxied() {
        let variables = &[PROXY, ("HTTP_PROXY", "http://proxy:3128"), ("KUBERNETES_SERVICE_HOST", "10.96.0.1")];
        for url in [
            "http://169.254.169.254/latest/meta-data",
            "http://[fd00:ec2::254]/latest/meta-data",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://[FD00:EC2:0::23]:80/v1/credentials",
            "http://169.254.170.2/v2/credentials",
            "https://10.96.0.1:443/version",
            "https://127.0.0.1:6443/",
            "http://localhost:5000/",
            "http://LocalHost/",
            "https://[::1]:6443",
        ] {
            assert_eq!(through(variables, url), None, "{url}");
        }
        for url in ["https://10.96.0.2/", "http://169.254.169.253/", "https://user:x@elb.example/", ELB] {
            assert!(through(variables, url).is_some(), "{url}");
        }
        let six = &[PROXY, ("KUBERNETES_SERVICE_HOST", "fd12::1")];
        assert_eq!(through(six, "https://[fd12::1]:443/"), None);
        assert_eq!(through(&[PROXY, ("KUBERNETES_SERVICE_HOST", "Api.Internal")], "https://api.internal:6443/"), None);
    }

    #[test]
    fn no_proxy_is_read_as_go_reads_it() {
        for (entries, url, direct) in [
            ("*", ELB, true),
            ("amazonaws.com", ELB, true),
            ("amazonaws.com", "https://amazonaws.com", true),
            ("amazonaws.com", "https://notamazonaws.com", false),
            (".amazonaws.com", ELB, true),
            (".amazonaws.com", "https://amazonaws.com", false),
            ("*.amazonaws.com", ELB, true),
            ("*.amazonaws.com", "https://amazonaws.com", false),
            ("AMAZONAWS.com.", ELB, true),
            ("elasticloadbalancing.us-west-2.amazonaws.com:443", ELB, true),
            ("elasticloadbalancing.us-west-2.amazonaws.com:8443", ELB, false),
            ("ec2.us-west-2.amazonaws.com", ELB, false),
            ("localhost, ,10.0.0.0/8 , sts.us-west-2.amazonaws.com", "https://10.1.2.3:8443/x", true),
            ("localhost, ,10.0.0.0/8 , sts.us-west-2.amazonaws.com", "https://sts.us-west-2.amazonaws.com", true),
            ("10.0.0.0/8", "https://11.1.2.3/", false),
            ("10.0.0.0/8", "https://ten.example/", false),
            ("10.1.2.3:443", "https://10.1.2.3/", true),
            ("10.1.2.3:443", "https://10.1.2.3:444/", false),
            ("10.1.2.3", "https://10.1.2.3:444/", true),
            ("fd12::/16", "https://[fd12::5]:9/", true),
            ("[fd12::5]:9", "https://[fd12::5]:9/", true),
            ("[fd12::5]:9", "https://[fd12::5]:10/", false),
            ("fd12::5", "https://[fd12::5]:10/", true),
            ("com", ELB, true),
            (":443", ELB, false),
            ("[", ELB, false),
        ] {
            for name in ["NO_PROXY", "no_proxy"] {
                assert_eq!(through(&[PROXY, (name, entries)], url).is_none(), direct, "{entries} {url}");
            }
        }
        let both = &[PROXY, ("NO_PROXY", "other.example"), ("no_proxy", "amazonaws.com")];
        assert!(through(both, ELB).is_some(), "capitals come first");
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_its_password() {
        insta::assert_snapshot!(
            proxies(&[("https_proxy", "socks5://me:secret@proxy:1080")]).unwrap_err(),
            @"HTTPS_PROXY is `socks5://…@proxy:1080`, which is not the address of an HTTP proxy; write `http://host:port`"
        );
        for text in ["http://", "http://host:port", "http://ho st", "http://[::1", "http://host:0", "http://hôte:1"] {
            assert!(proxies(&[("HTTP_PROXY", text)]).is_err(), "{text}");
        }
        let proxies = proxies(&[("HTTPS_PROXY", "http://me:secret@proxy:3128")]).unwrap();
        assert_eq!(format!("{proxies:?}").matches("secret").count(), 0);
        assert_eq!(proxies.for_url(ELB).unwrap().secret_url(), "http://me:secret@proxy:3128");
    }
}
