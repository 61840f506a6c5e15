//! Cookies that keep a client with a target group and a target. Pure.
//!
//! AWS encrypts their content; here it is readable. All nodes read the cookies of each other.

use std::{collections::BTreeMap, time::Duration};

use hyper::{
    HeaderMap,
    header::{COOKIE, HeaderValue, SET_COOKIE},
};
use serde::{Deserialize, Serialize};

use super::{is_on, time};
use crate::account::Target;

/// The cookie of a target group among several.
pub(super) const OF_GROUP: &str = "AWSALBTG";
/// The cookie of a target, by duration.
pub(super) const OF_TARGET: &str = "AWSALB";
/// The cookie of a target that goes with a cookie of the application.
pub(super) const OF_APPLICATION: &str = "AWSALBAPP-0";

/// The age of an application's second cookie; its content may end sooner.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// The content of a cookie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    /// The ARN of the target group.
    pub(super) group: String,
    /// The target, unless only the group is remembered.
    pub(super) target: Option<Target>,
    /// The millisecond since 1970 at which it ends.
    pub(super) until: i64,
}

/// The kind of cookie by which clients stay with a target of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stickiness {
    /// By a cookie of the load balancer.
    Duration(u64),
    /// By a cookie of the application's and one of the load balancer.
    Application { cookie: String, seconds: u64 },
}

impl Stickiness {
    /// Returns the stickiness that a target group's attributes ask for.
    pub(super) fn of(attributes: &BTreeMap<String, String>) -> Option<Self> {
        if !is_on(attributes, "stickiness.enabled") {
            return None;
        }
        let seconds = |name: &str| attributes.get(name).and_then(|value| value.parse().ok()).unwrap_or(86_400);
        match attributes.get("stickiness.type").map(String::as_str) {
            Some("app_cookie") => Some(Self::Application {
                cookie: attributes.get("stickiness.app_cookie.cookie_name").cloned().unwrap_or_default(),
                seconds: seconds("stickiness.app_cookie.duration_seconds"),
            }),
            Some("lb_cookie") | None => Some(Self::Duration(seconds("stickiness.lb_cookie.duration_seconds"))),
            Some(_) => None,
        }
    }

    /// Returns the target of a group that the cookies of a request name.
    pub(super) fn target(&self, headers: &HeaderMap, group: &str, now: i64) -> Option<Target> {
        let name = match self {
            Self::Duration(_) => OF_TARGET,
            Self::Application { cookie, .. } => {
                value(headers, cookie)?;
                OF_APPLICATION
            }
        };
        remembered(headers, name, now).filter(|remembered| remembered.group == group)?.target
    }
}

/// Returns the value of a cookie of a request.
fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// Returns the content of a cookie, if it can be read and has not ended.
pub(super) fn remembered(headers: &HeaderMap, name: &str, now: i64) -> Option<Remembered> {
    let text = value(headers, name)?;
    let bytes: Option<Vec<u8>> =
        text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    serde_json::from_slice::<Remembered>(&bytes?).ok().filter(|remembered| remembered.until > now)
}

/// Returns true if an answer sets a cookie of the application's.
pub(super) fn sets(headers: &HeaderMap, name: &str) -> bool {
    let names = headers.get_all(SET_COOKIE).iter().filter_map(|header| header.to_str().ok()?.split_once('='));
    names.into_iter().any(|(key, _)| key.trim() == name)
}

/// Adds a cookie to an answer, which lasts for `age` from the millisecond `now`.
pub(super) fn remember(
    headers: &mut HeaderMap,
    name: &str,
    (group, target): (&str, Option<&Target>),
    (now, age): (i64, Duration),
    secure: bool,
) {
    let until = now.saturating_add(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let remembered = Remembered { group: group.to_owned(), target: target.cloned(), until };
    let Ok(json) = serde_json::to_vec(&remembered) else { return };
    let value: String = json.iter().map(|byte| format!("{byte:02x}")).collect();
    let week = now.saturating_add(i64::try_from(WEEK.as_millis()).unwrap_or(i64::MAX));
    let ends = if name == OF_APPLICATION { week } else { until };
    let expires = time::http(ends.saturating_add(999).div_euclid(1000));
    let cookie = format!("{name}={value}; Expires={expires}; Path=/");
    // Browsers send the second one in requests of other sites.
    let other_sites = if secure { "SameSite=None; Secure" } else { "SameSite=None" };
    let second = format!("{name}CORS={value}; Expires={expires}; Path=/; {other_sites}");
    let both = if name == OF_APPLICATION { vec![cookie] } else { vec![cookie, second] };
    for cookie in both {
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        headers.get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    /// The cookies of an answer, as a client sends them back.
    fn sent_back(headers: &HeaderMap) -> HeaderMap {
        let pairs: Vec<String> = lines(headers).iter().map(|line| line.split(';').next().unwrap().to_owned()).collect();
        HeaderMap::from_iter([(COOKIE, pairs.join("; ").parse().unwrap())])
    }

    #[test]
    fn attributes_of_a_group() {
        let on = ("stickiness.enabled", "true");
        for (pairs, expected) in [
            (vec![], None),
            (vec![("stickiness.enabled", "false"), ("stickiness.type", "lb_cookie")], None),
            (vec![on], Some(Stickiness::Duration(86_400))),
            (vec![on, ("stickiness.type", "source_ip")], None),
            (
                vec![on, ("stickiness.type", "lb_cookie"), ("stickiness.lb_cookie.duration_seconds", "5")],
                Some(Stickiness::Duration(5)),
            ),
            (
                vec![on, ("stickiness.type", "app_cookie"), ("stickiness.app_cookie.cookie_name", "id")],
                Some(Stickiness::Application { cookie: "id".to_owned(), seconds: 86_400 }),
            ),
        ] {
            assert_eq!(Stickiness::of(&attributes(&pairs)), expected);
        }
    }

    #[test]
    fn a_target_is_remembered_until_the_cookie_ends() {
        let target = Target { id: "10.0.0.1".to_owned(), port: 80 };
        let mut answer = HeaderMap::new();
        remember(&mut answer, OF_TARGET, ("group", Some(&target)), (1000, Duration::from_secs(5)), true);
        let [first, second] = lines(&answer).try_into().unwrap();
        assert!(first.ends_with("; Expires=Thu, 01 Jan 1970 00:00:06 GMT; Path=/"), "{first}");
        assert!(second.starts_with("AWSALBCORS=") && second.ends_with("; Path=/; SameSite=None; Secure"), "{second}");
        let request = sent_back(&answer);
        let sticky = Stickiness::Duration(5);
        assert_eq!(sticky.target(&request, "group", 5999), Some(target.clone()));
        assert_eq!(sticky.target(&request, "group", 6000), None);
        assert_eq!(sticky.target(&request, "other", 1000), None);
        let broken = HeaderMap::from_iter([(COOKIE, "AWSALB=zz".parse().unwrap())]);
        assert_eq!(sticky.target(&broken, "group", 1000), None);
    }

    #[test]
    fn the_cookie_of_an_application_needs_its_own_beside_it() {
        let target = Target { id: "10.0.0.1".to_owned(), port: 80 };
        let mut answer = HeaderMap::from_iter([(SET_COOKIE, "id=1; Path=/".parse().unwrap())]);
        assert!(sets(&answer, "id") && !sets(&answer, "i"));
        let sticky = Stickiness::Application { cookie: "id".to_owned(), seconds: 5 };
        remember(&mut answer, OF_APPLICATION, ("group", Some(&target)), (0, Duration::from_secs(5)), false);
        let request = sent_back(&answer);
        assert_eq!(sticky.target(&request, "group", 0), Some(target));
        assert!(lines(&answer)[1].ends_with("; Expires=Thu, 08 Jan 1970 00:00:00 GMT; Path=/"));
        answer.remove(SET_COOKIE);
        remember(&mut answer, OF_APPLICATION, ("group", None), (0, Duration::from_secs(5)), false);
        assert_eq!(sticky.target(&sent_back(&answer), "group", 0), None);
    }
}
