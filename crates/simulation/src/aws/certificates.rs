//! ACM and Route 53: certificates that are issued when the records exist that prove their hosts.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    account::{ACCOUNT, Account, REGION, Session},
    wire::{Answer, Refusal, Request, element, refusal, text},
};
use albatross_core::model::Tags;

/// The public hosted zones, by id.
const ZONES: [(&str, &str); 2] = [("Z1", "example.com."), ("Z2", "example.org.")];
/// The time until ACM shows the names of a certificate.
const NAMES_AFTER: Duration = Duration::from_secs(1);
/// The time until ACM shows the records of a certificate.
const RECORDS_AFTER: Duration = Duration::from_secs(3);
/// The time until it issues one whose records exist, or that a private authority issues.
const ISSUED_AFTER: Duration = Duration::from_secs(20);
/// The time for which it answers the token of a request with the same certificate, be it deleted or not.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug)]
pub(super) struct Certificate {
    pub hosts: BTreeSet<String>,
    pub tags: Tags,
    authority: Option<String>,
    token: String,
    requested: Instant,
    /// The time since when all records exist.
    proved: Option<Instant>,
}

/// Returns the record of a host: ACM has one for a host, whatever the certificate, and with it for its wildcard.
fn record(host: &str) -> (String, String) {
    let host = host.strip_prefix("*.").unwrap_or(host);
    (format!("_proof.{host}."), format!("_{host}.acm-validations.aws."))
}

fn not_found(arn: &str) -> Refusal {
    refusal("ResourceNotFoundException", format!("Could not find certificate {arn}."))
}

fn invalid_change(message: String) -> Refusal {
    refusal("InvalidChangeBatch", message)
}

impl Account {
    /// Returns true if a listener has the certificate.
    fn uses(&self, arn: &str) -> bool {
        let mut listeners = self.balancers.values().flat_map(|balancer| balancer.listeners.values());
        listeners
            .any(|listener| listener.default_certificate.as_deref() == Some(arn) || listener.certificates.contains(arn))
    }

    /// Notes the certificates whose records exist since now.
    fn prove(&mut self, now: Instant) {
        let Self { certificates, records, .. } = self;
        for certificate in certificates.values_mut().filter(|certificate| certificate.proved.is_none()) {
            let exists = |host: &String| {
                let (name, value) = record(host);
                records.get(&name) == Some(&value)
            };
            let is_proved = certificate.authority.is_some() || certificate.hosts.iter().all(exists);
            certificate.proved = is_proved.then_some(now);
        }
    }

    /// Returns true if a certificate that ACM was asked for is issued. Others are not known here, and are.
    pub(super) fn is_issued(&self, arn: &str, now: Instant) -> bool {
        let Some(certificate) = self.certificates.get(arn) else { return !arn.contains("/requested-") };
        certificate.proved.is_some_and(|at| now.saturating_duration_since(at) >= ISSUED_AFTER)
    }

    /// Returns a certificate without what differs from account to account.
    pub(super) fn certificate_name(&self, arn: &str) -> String {
        let Some(certificate) = self.certificates.get(arn) else { return arn.to_owned() };
        let resource = certificate.tags.get(albatross_core::model::tags::INGRESS_RESOURCE);
        let hosts: Vec<&str> = certificate.hosts.iter().map(String::as_str).collect();
        format!("{} for {}", resource.map_or("requested", String::as_str), hosts.join(", "))
    }
}

impl Session<'_> {
    fn json(&self, name: &str) -> Value {
        self.request.text(name).and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null)
    }

    pub(super) fn request_certificate(&mut self) -> Answer {
        let (domain, token) =
            (self.request.need("DomainName")?.to_owned(), self.request.need("IdempotencyToken")?.to_owned());
        let authority = self.request.text("CertificateAuthorityArn").map(str::to_owned);
        let _ = self.request.need("ValidationMethod")?;
        let names = self.json("SubjectAlternativeNames");
        let mut hosts: BTreeSet<String> =
            names.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        hosts.insert(domain.clone());
        if domain.len() > 64 || hosts.len() > 100 || token.len() > 32 {
            return Err(refusal("ValidationException", "A name, a token or the list of names is too long"));
        }
        let tags = self.json("Tags");
        let tag =
            |tag: &Value| Some((tag["Key"].as_str()?.to_owned(), tag["Value"].as_str().unwrap_or_default().to_owned()));
        let tags: Tags = tags.as_array().into_iter().flatten().filter_map(tag).collect();
        let now = self.now;
        let is_repeated = |known: &Certificate| {
            known.token == token && now.saturating_duration_since(known.requested) < TOKEN_LIFETIME
        };
        let requests = self.account.certificates.iter().chain(&self.account.deleted_certificates);
        if let Some((arn, known)) = requests.into_iter().find(|(_, known)| is_repeated(known)) {
            let is_same = known.hosts == hosts && known.authority == authority && known.tags == tags;
            return match is_same {
                true => Ok(json!({ "CertificateArn": arn }).to_string()),
                false => Err(refusal("ValidationException", "The token belongs to another request")),
            };
        }
        let arn = format!("arn:aws:acm:{REGION}:{ACCOUNT}:certificate/requested-{}", self.account.id());
        let certificate = Certificate { hosts, tags, authority, token, requested: self.now, proved: None };
        self.account.certificates.insert(arn.clone(), certificate);
        self.account.prove(self.now);
        Ok(json!({ "CertificateArn": arn }).to_string())
    }

    pub(super) fn describe_certificate(&mut self) -> Answer {
        let arn = self.request.need("CertificateArn")?;
        let known = self.account.certificates.get(arn).ok_or_else(|| not_found(arn))?;
        let shows = self.now.saturating_duration_since(known.requested) >= RECORDS_AFTER && known.authority.is_none();
        let option = |host: &String| {
            let (name, value) = record(host);
            let record = shows.then(|| json!({ "Name": name, "Type": "CNAME", "Value": value }));
            json!({ "DomainName": host, "ResourceRecord": record })
        };
        let status = if self.account.is_issued(arn, self.now) { "ISSUED" } else { "PENDING_VALIDATION" };
        let options: Vec<Value> = known.hosts.iter().map(option).collect();
        let is_new = self.now.saturating_duration_since(known.requested) < NAMES_AFTER;
        let names = known.hosts.iter().filter(|_| !is_new).collect::<Vec<_>>();
        Ok(json!({ "Certificate": {
            "CertificateArn": arn, "Status": status, "SubjectAlternativeNames": names,
            "CertificateAuthorityArn": known.authority, "DomainValidationOptions": options,
        } })
        .to_string())
    }

    pub(super) fn list_certificates(&mut self) -> Answer {
        let statuses = self.json("CertificateStatuses");
        let _ = (self.json("Includes"), self.request.text("MaxItems"));
        let after = self.request.text("NextToken").unwrap_or_default();
        let only_issued = statuses.as_array().is_some_and(|statuses| statuses.contains(&json!("ISSUED")));
        let shown = |arn: &String, now| !only_issued || self.account.is_issued(arn, now);
        let mut rest = self.account.certificates.iter().filter(|(arn, _)| arn.as_str() > after && shown(arn, self.now));
        let page: Vec<_> = rest.by_ref().take(self.page_size).collect();
        let token = rest.next().and(page.last()).map(|(arn, _)| (*arn).clone());
        let summary = |(arn, known): &(&String, &Certificate)| json!({ "CertificateArn": arn, "Type": "AMAZON_ISSUED", "SubjectAlternativeNameSummaries": known.hosts });
        let page: Vec<Value> = page.iter().map(summary).collect();
        Ok(json!({ "CertificateSummaryList": page, "NextToken": token }).to_string())
    }

    pub(super) fn list_tags_for_certificate(&mut self) -> Answer {
        let arn = self.request.need("CertificateArn")?;
        let known = self.account.certificates.get(arn).ok_or_else(|| not_found(arn))?;
        let tags: Vec<Value> = known.tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect();
        Ok(json!({ "Tags": tags }).to_string())
    }

    pub(super) fn delete_certificate(&mut self) -> Answer {
        let arn = self.request.need("CertificateArn")?;
        if self.account.uses(arn) {
            return Err(refusal("ResourceInUseException", format!("Certificate {arn} is in use.")));
        }
        let certificate = self.account.certificates.remove(arn).ok_or_else(|| not_found(arn))?;
        self.account.deleted_certificates.insert(arn.to_owned(), certificate);
        Ok("{}".to_owned())
    }

    pub(super) fn list_hosted_zones(&mut self) -> Answer {
        let zone = |(id, name): &(&str, &str)| {
            let config = element("Config", &text("PrivateZone", false));
            element(
                "HostedZone",
                &(text("Id", format!("/hostedzone/{id}"))
                    + &text("Name", name)
                    + &text("CallerReference", id)
                    + &config),
            )
        };
        let zones: String = ZONES.iter().map(zone).collect();
        Ok(element("HostedZones", &zones) + &text("Marker", "") + &text("IsTruncated", false) + &text("MaxItems", 100))
    }

    pub(super) fn change_resource_record_sets(&mut self) -> Answer {
        let need = |name: &str| self.request.need(name).map(str::to_owned);
        let (zone, action, name, value) = (need("Zone")?, need("Action")?, need("Name")?, need("Value")?);
        let (kind, ttl) = (need("Type")?, need("TTL")?);
        let Some((_, domain)) = ZONES.iter().find(|(id, _)| *id == zone) else {
            return Err(refusal("NoSuchHostedZone", format!("No hosted zone found with ID: {zone}")));
        };
        if kind != "CNAME" || ttl != "60" || !name.ends_with(&format!(".{domain}")) {
            return Err(invalid_change(format!("[The record {name} {kind} is not permitted in zone {domain}]")));
        }
        let known = self.account.records.get(&name).cloned();
        match (action.as_str(), known) {
            ("CREATE", None) => drop(self.account.records.insert(name, value)),
            ("CREATE", Some(_)) => {
                return Err(invalid_change(format!(
                    "[Tried to create resource record set [name='{name}', type='CNAME'] but it already exists]"
                )));
            }
            ("DELETE", Some(known)) if known == value => drop(self.account.records.remove(&name)),
            (_, known) => {
                let why = if known.is_some() { "the values provided do not match" } else { "it was not found" };
                return Err(invalid_change(format!("[Tried to delete resource record set [name='{name}'] but {why}]")));
            }
        }
        self.account.prove(self.now);
        let info = text("Id", "/change/1") + &text("Status", "PENDING") + &text("SubmittedAt", "2026-01-01T00:00:00Z");
        Ok(element("ChangeInfo", &info))
    }
}

/// Returns a request of Route 53, whose operations are paths.
pub(super) fn route53(path: &str, body: &str) -> Option<Request> {
    let rest = path.strip_prefix("/2013-04-01/hostedzone")?;
    let between = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        rest.split_once('<').map(|(text, _)| text.to_owned())
    };
    let Some(zone) = rest.strip_prefix('/').and_then(|rest| rest.split('/').next()) else {
        return Some(Request::rest("ListHostedZones", std::iter::empty()));
    };
    let fields = ["Action", "Name", "Type", "TTL", "Value"].into_iter();
    let fields = fields.filter_map(|name| Some((name.to_owned(), between(name)?)));
    Some(Request::rest("ChangeResourceRecordSets", fields.chain([("Zone".to_owned(), zone.to_owned())])))
}
