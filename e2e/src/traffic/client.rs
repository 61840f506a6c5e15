//! Clients of a scenario: what they ask, and which answers are right before and after each change.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use albatross_fabric::load::{Answer, Excuse, Follow, Judge, LoadSpec, Lost, LostKind, Resolve, Scheme, Tls};
use hyper::body::Bytes;

/// The label of answers as they were before a change.
pub(super) const OLD: &str = "old";
/// The label of answers as they are after it.
pub(super) const NEW: &str = "new";
/// The label of answers that are right before and after it.
pub(super) const SAME: &str = "same";

/// The kind of the host name of what stands in front of an Ingress's load balancer.
pub(super) const FRONT: &str = "Front";

/// The right answer.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Expect {
    /// 200 of a pod of one of these Deployments, to the request itself and not after a redirect.
    Pods(&'static [&'static str]),
    /// An answer of the load balancer's own: status and body.
    Fixed(u16, &'static str),
    /// A redirect to a location that contains the text.
    Redirect(u16, &'static str),
    /// The line or datagram, sent back.
    Echo,
    /// The answer that a redirect to `https` led to.
    Secure(Box<Expect>),
    /// A server with this certificate in DER.
    Certificate(Bytes, Box<Expect>),
    /// No answer, in one of these ways.
    Lost(&'static [LostKind]),
}

/// The load balancer's answer where no rule matches.
pub(super) const NOT_FOUND: Expect = Expect::Fixed(404, "");

/// A port that nothing listens at, or that security groups do not let this client in at.
pub(super) const SILENT: Expect =
    Expect::Lost(&[LostKind::Refused, LostKind::Reset, LostKind::Closed, LostKind::TimedOut]);

/// A client that security groups do not let in.
pub(super) const SHUT_OUT: Expect = Expect::Lost(&[LostKind::TimedOut]);

pub(super) const fn pods(of: &'static [&'static str]) -> Expect {
    Expect::Pods(of)
}

impl Expect {
    pub(super) fn secure(self) -> Self {
        Self::Secure(Box::new(self))
    }

    pub(super) fn with_certificate(self, der: Bytes) -> Self {
        Self::Certificate(der, Box::new(self))
    }

    fn fits(&self, answer: &Answer) -> bool {
        match self {
            Self::Pods(of) => {
                let is_of =
                    |pod: &str| of.iter().any(|name| pod.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')));
                answer.status == 200 && !answer.redirected && answer.pod().is_some_and(is_of)
            }
            Self::Fixed(status, body) => {
                answer.is_of_load_balancer() && answer.status == *status && (body.is_empty() || answer.text() == *body)
            }
            Self::Redirect(status, location) => {
                let goes = answer.header("location").contains(location);
                answer.is_of_load_balancer() && answer.status == *status && goes
            }
            Self::Echo => answer.status == 0,
            Self::Secure(inner) => answer.redirected && inner.fits(&Answer { redirected: false, ..answer.clone() }),
            Self::Certificate(der, inner) => answer.certificate.as_ref() == Some(der) && inner.fits(answer),
            Self::Lost(_) => false,
        }
    }

    fn excuses(&self, lost: &Lost) -> bool {
        matches!(self, Self::Lost(kinds) if kinds.contains(&lost.kind))
    }
}

impl fmt::Debug for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(of) => write!(f, "200 of {}", of.join(" or ")),
            Self::Fixed(status, body) => write!(f, "{status} `{body}` of the load balancer"),
            Self::Redirect(status, location) => write!(f, "{status} to {location}"),
            Self::Echo => f.write_str("the echo"),
            Self::Secure(inner) => write!(f, "after a redirect to https, {inner:?}"),
            Self::Certificate(_, inner) => write!(f, "with its certificate, {inner:?}"),
            Self::Lost(kinds) => write!(f, "nothing ({kinds:?})"),
        }
    }
}

/// Returns an answer in words, for the report of a wrong one.
fn described(answer: &Answer) -> String {
    let who = match answer.pod() {
        Some(pod) => format!("of pod {pod}"),
        None if answer.is_of_load_balancer() => "of the load balancer".to_owned(),
        None => "of nobody who names himself".to_owned(),
    };
    let location = answer.header("location");
    let location = if location.is_empty() { String::new() } else { format!(" to {location}") };
    let body: String = answer.text().lines().next().unwrap_or_default().chars().take(60).collect();
    format!("{} {who}{location}: `{body}`", answer.status)
}

/// A client: its load and its expectations.
#[derive(Clone)]
pub(super) struct Client {
    /// The kind and name of the object whose status names the load balancer.
    pub(super) of: (&'static str, String),
    title: String,
    port: u16,
    scheme: Scheme,
    /// HTTP, TLS and the host that are asked for.
    host: String,
    path: String,
    clients: u8,
    http2: bool,
    kept_for: Option<Duration>,
    timeout: Option<Duration>,
    follow: bool,
    /// True if no connection is kept.
    each_new: bool,
    /// The right answers: at first, after the first change, and so on. The last one remains.
    states: Vec<Expect>,
}

impl Client {
    fn new(of: (&'static str, &str), scheme: Scheme, port: u16) -> Self {
        Self {
            of: (of.0, of.1.to_owned()),
            title: of.1.to_owned(),
            port,
            scheme,
            host: format!("{}.example.com", of.1),
            path: "/".to_owned(),
            clients: 0,
            http2: false,
            kept_for: None,
            timeout: None,
            follow: false,
            each_new: false,
            states: Vec::new(),
        }
    }

    /// Asks an Ingress's load balancer at port 80 for a path.
    pub(super) fn http(ingress: &str, path: &str) -> Self {
        let client = Self::new(("Ingress", ingress), Scheme::Http, 80);
        Self { path: path.to_owned(), title: path.to_owned(), ..client }
    }

    /// Asks the Network Load Balancer in front of an Ingress's at port 80 for a path.
    pub(super) fn http_in_front(ingress: &str, path: &str) -> Self {
        let client = Self::new((FRONT, ingress), Scheme::Http, 80);
        Self { path: path.to_owned(), title: format!("front {path}"), ..client }
    }

    /// Asks an Ingress's load balancer at port 443 for a host and a path.
    pub(super) fn https(ingress: &str, host: &str, path: &str) -> Self {
        let tls = Tls { server_name: host.to_owned(), roots: None };
        let client = Self::new(("Ingress", ingress), Scheme::Https(tls), 443);
        Self { path: path.to_owned(), title: format!("https://{host}{path}"), host: host.to_owned(), ..client }
    }

    /// Asks the pods behind a Service's load balancer with HTTP.
    pub(super) fn http_of_service(service: &str, port: u16) -> Self {
        let client = Self::new(("Service", service), Scheme::Http, port);
        Self { title: format!("http {port}"), ..client }
    }

    /// Sends lines to a Service's load balancer.
    pub(super) fn tcp(service: &str, port: u16) -> Self {
        let client = Self::new(("Service", service), Scheme::Tcp, port);
        Self { title: format!("tcp {port}"), ..client }
    }

    /// Sends lines over TLS to a Service's load balancer.
    pub(super) fn tls(service: &str, port: u16, server_name: &str) -> Self {
        let tls = Tls { server_name: server_name.to_owned(), roots: None };
        let client = Self::new(("Service", service), Scheme::Tls(tls), port);
        Self { title: format!("tls {port}"), ..client }
    }

    /// Sends datagrams to a Service's load balancer.
    pub(super) fn udp(service: &str, port: u16) -> Self {
        let client = Self::new(("Service", service), Scheme::Udp, port);
        Self { title: format!("udp {port}"), ..client }
    }

    pub(super) fn host(self, host: &str) -> Self {
        Self { title: format!("{host}{}", self.path), host: host.to_owned(), ..self }
    }

    pub(super) fn port(self, port: u16) -> Self {
        Self { title: format!(":{port}{}", self.path), port, ..self }
    }

    pub(super) fn http2(self) -> Self {
        Self { title: format!("h2 {}", self.title), http2: true, ..self }
    }

    /// Dials from 198.18.`clients`.0/24, as load balancers see it.
    pub(super) fn from(self, clients: u8) -> Self {
        Self { title: format!("{} from 198.18.{clients}.0/24", self.title), clients, ..self }
    }

    /// Gives up after this time.
    pub(super) fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Uses no connection for longer than this.
    pub(super) fn kept_for(self, time: Duration) -> Self {
        Self { kept_for: Some(time), ..self }
    }

    /// Goes where it is redirected to, if that is `https`.
    pub(super) fn following(self) -> Self {
        Self { follow: true, ..self }
    }

    /// Keeps no connection.
    pub(super) fn each_new(self) -> Self {
        Self { each_new: true, ..self }
    }

    /// Sets the right answer at first and, called again, after each change.
    pub(super) fn then(mut self, expect: Expect) -> Self {
        self.states.push(expect);
        self
    }

    pub(super) fn title(&self) -> &str {
        &self.title
    }

    fn state(&self, number: usize) -> Option<&Expect> {
        self.states.get(number).or(self.states.last())
    }

    /// Returns true if the change after this state concerns the client.
    pub(super) fn is_concerned(&self, number: usize) -> bool {
        self.state(number) != self.state(number + 1)
    }

    /// Returns true if there are answers that are right only after the change of this state.
    pub(super) fn has_new_answers(&self, number: usize) -> bool {
        match (self.state(number), self.state(number + 1)) {
            (Some(Expect::Pods(old)), Some(Expect::Pods(new))) => new.iter().any(|app| !old.contains(app)),
            (old, new) => old != new,
        }
    }

    /// The judge of a time in which a change from state `from` to state `to` may be seen.
    pub(super) fn judges(&self, from: usize, to: usize) -> (Judge, Option<Excuse>) {
        let (old, new) = (self.state(from).cloned(), self.state(to).cloned());
        let label = move |fits: &dyn Fn(&Expect) -> bool| -> Option<Cow<'static, str>> {
            let is_new = new.as_ref().is_some_and(fits);
            let is_old = old.as_ref().is_some_and(fits);
            match (is_old, is_new) {
                (true, true) => Some(SAME.into()),
                (false, true) => Some(NEW.into()),
                (true, false) => Some(OLD.into()),
                (false, false) => None,
            }
        };
        let of_answer = label.clone();
        let judge: Judge = std::sync::Arc::new(move |answer| {
            of_answer(&|expect| expect.fits(answer)).ok_or_else(|| described(answer))
        });
        let excuse: Excuse = std::sync::Arc::new(move |lost| label(&|expect| expect.excuses(lost)));
        (judge, Some(excuse))
    }

    /// Returns the load of the client in its first state.
    pub(super) fn load(&self, state: usize, setting: &Setting) -> LoadSpec {
        let name = format!("{}/{}", self.of.0, self.of.1);
        let (judge, excuse) = self.judges(state, state);
        let shift = |port: u16| port.saturating_add(setting.port_offset);
        let standard = LoadSpec::new(&name, shift(self.port), setting.resolve.clone());
        let tls = Tls { server_name: self.host.clone(), roots: None };
        LoadSpec {
            title: self.title.clone(),
            scheme: self.scheme.clone(),
            rate: setting.rate,
            host: Some(self.host.clone()),
            path: self.path.clone(),
            http2: self.http2,
            kept_for: self.kept_for,
            new_connections: if self.each_new { 1.0 } else { standard.new_connections },
            clients: self.clients,
            seed: setting.seed,
            strict: setting.strict,
            timeout: self.timeout.unwrap_or(setting.timeout),
            follow: self.follow.then(|| Follow { tls, port: shift(443) }),
            judge,
            excuse,
            ..standard
        }
    }
}

/// The settings that all clients of a run have in common.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) rate: u32,
    pub(super) seed: u64,
    pub(super) strict: bool,
    /// The most that a request may take, unless the client has its own.
    pub(super) timeout: Duration,
    pub(super) port_offset: u16,
    pub(super) resolve: Resolve,
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::Ipv4Addr;

    use hyper::HeaderMap;
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    /// Returns an answer with these headers, under a certificate `one`.
    pub(crate) fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Answer {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Answer {
            status,
            headers: headers.collect::<HeaderMap>(),
            body: Bytes::from_static(body.as_bytes()),
            certificate: Some(Bytes::from_static(b"one")),
            address: Ipv4Addr::LOCALHOST,
            redirected: false,
        }
    }

    const SERVER: (&str, &str) = ("server", "awselb/2.0");

    #[test]
    fn an_expectation_fits_its_own_answers_only() {
        let of_web = answer(200, &[("x-pod", "web-1-x")], "pod");
        let of_webb = answer(200, &[("x-pod", "webb-1-x")], "pod");
        let not_found = answer(404, &[SERVER], "");
        let to_other = answer(301, &[SERVER, ("location", "https://other.example.com/")], "");
        let followed = Answer { redirected: true, ..of_web.clone() };
        let all = [&of_web, &of_webb, &not_found, &to_other, &followed];
        let which = |expect: &Expect| all.map(|answer| expect.fits(answer));
        let web = pods(&["web"]);
        assert_eq!(which(&web), [true, false, false, false, false]);
        assert_eq!(which(&pods(&["web", "webb"])), [true, true, false, false, false]);
        assert_eq!(which(&NOT_FOUND), [false, false, true, false, false]);
        assert_eq!(which(&Expect::Redirect(301, "other.")), [false, false, false, true, false]);
        assert_eq!(which(&web.clone().secure()), [false, false, false, false, true]);
        let certificate = |text: &'static [u8]| web.clone().with_certificate(Bytes::from_static(text));
        assert_eq!(which(&certificate(b"one")), [true, false, false, false, false]);
        assert_eq!(which(&certificate(b"one").secure()), [false, false, false, false, true]);
        assert_eq!(which(&certificate(b"two")), [false; 5]);
        assert_eq!(which(&SILENT), [false; 5]);
    }

    #[test]
    fn answers_are_old_or_new_while_a_change_goes_on_and_else_as_the_state_is() {
        let client = Client::http("web", "/").then(pods(&["web"])).then(NOT_FOUND);
        let (old, new) = (answer(200, &[("x-pod", "web-1")], ""), answer(404, &[SERVER], ""));
        let other = answer(200, &[("x-pod", "api-1")], "body");
        let judged = |from, to| {
            let (judge, _) = client.judges(from, to);
            [&old, &new, &other].map(|answer| judge(answer).map(|label| label.into_owned()))
        };
        let wrong = |text: &str| Err(text.to_owned());
        let (of_old, of_new) = ("200 of pod web-1: ``", "404 of the load balancer: ``");
        let of_other = "200 of pod api-1: `body`";
        assert_eq!(judged(0, 0), [Ok(SAME.to_owned()), wrong(of_new), wrong(of_other)]);
        assert_eq!(judged(0, 1), [Ok(OLD.to_owned()), Ok(NEW.to_owned()), wrong(of_other)]);
        assert_eq!(judged(1, 1), [wrong(of_old), Ok(SAME.to_owned()), wrong(of_other)]);
        assert!(client.is_concerned(0) && !client.is_concerned(1));
        let weights = Client::http("web", "/").then(pods(&["a"])).then(pods(&["a", "b"])).then(pods(&["b"]));
        assert_eq!([0, 1, 2].map(|number| weights.has_new_answers(number)), [true, false, false]);
        assert_eq!([0, 1, 2].map(|number| weights.is_concerned(number)), [true, true, false]);
    }

    #[test]
    fn a_loss_is_excused_where_it_is_expected() {
        let client = Client::http("web", "/").then(SILENT).then(pods(&["web"]));
        let lost = |kind| Lost { kind, detail: String::new() };
        let excused = |from, to, kind| client.judges(from, to).1.unwrap()(&lost(kind)).map(Cow::into_owned);
        assert_eq!(excused(0, 0, LostKind::Refused).as_deref(), Some(SAME));
        assert_eq!(excused(0, 1, LostKind::Refused).as_deref(), Some(OLD));
        assert_eq!(excused(0, 1, LostKind::Cut), None);
        assert_eq!(excused(1, 1, LostKind::Refused), None);
    }
}
