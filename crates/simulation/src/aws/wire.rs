//! AWS's protocols. In the query protocol a request is a form and a response is XML; WAF and Shield use JSON.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use crate::form::form;

/// The operations of EC2. Its lists have no `member` in their names, and its responses have another form.
const EC2: [&str; 13] = [
    "AuthorizeSecurityGroupIngress",
    "CreateSecurityGroup",
    "CreateTags",
    "DeleteSecurityGroup",
    "DeleteTags",
    "DescribeAvailabilityZones",
    "DescribeInstances",
    "DescribeNetworkInterfaces",
    "DescribeRouteTables",
    "DescribeSecurityGroups",
    "DescribeSubnets",
    "DescribeVpcs",
    "RevokeSecurityGroupIngress",
];

/// An error response of AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    pub code: String,
    pub message: String,
}

/// Returns a refusal that has changed nothing.
pub(super) fn refusal(code: &str, message: impl Into<String>) -> Refusal {
    Refusal { status: 400, code: code.to_owned(), message: message.into() }
}

/// The content of a response, or a refusal.
pub(super) type Answer = Result<String, Refusal>;

/// A request. It records which parameters were read, so that the simulation ignores none silently.
#[derive(Debug)]
pub(super) struct Request {
    pub operation: String,
    pub params: BTreeMap<String, String>,
    /// The access key of the caller.
    pub caller: String,
    is_json: bool,
    is_rest: bool,
    read: RefCell<BTreeSet<String>>,
}

impl Request {
    /// Parses a form.
    pub(super) fn parse(body: &str) -> Self {
        let mut params = form(body);
        let operation = params.remove("Action").unwrap_or_default();
        params.remove("Version");
        Self { operation, params, caller: String::new(), is_json: false, is_rest: false, read: RefCell::default() }
    }

    /// Parses an object of JSON, without structures in it.
    pub(super) fn parse_json(operation: &str, body: &str) -> Self {
        let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(body).unwrap_or_default();
        let text = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        let params = fields.into_iter().map(|(name, value)| (name, text(value))).collect();
        let operation = operation.to_owned();
        Self { operation, params, caller: String::new(), is_json: true, is_rest: false, read: RefCell::default() }
    }

    /// Returns a request whose operation is in its path.
    pub(super) fn rest(operation: &str, params: impl IntoIterator<Item = (String, String)>) -> Self {
        let (operation, params) = (operation.to_owned(), params.into_iter().collect());
        Self { operation, params, caller: String::new(), is_json: false, is_rest: true, read: RefCell::default() }
    }

    pub(super) fn is_json(&self) -> bool {
        self.is_json
    }

    /// Returns true if it is one of ELB v2's.
    pub(super) fn is_elb(&self) -> bool {
        !self.is_json && !self.is_rest && !self.is_ec2() && self.operation != "AssumeRole"
    }

    pub(super) fn is_ec2(&self) -> bool {
        EC2.contains(&self.operation.as_str())
    }

    pub(super) fn is_write(&self) -> bool {
        !["AssumeRole", "Describe", "Get", "List"].iter().any(|word| self.operation.starts_with(word))
    }

    /// Returns a field.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let (key, value) = self.params.get_key_value(name)?;
        self.read.borrow_mut().insert(key.clone());
        Some(value)
    }

    /// Returns a required field.
    pub(super) fn need(&self, name: &str) -> Result<&str, Refusal> {
        let code = if self.is_ec2() { "MissingParameter" } else { "ValidationError" };
        self.text(name).ok_or_else(|| refusal(code, format!("The request must contain the parameter {name}")))
    }

    /// Returns a number, if the field exists.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let bad = |text: &str| refusal("ValidationError", format!("'{text}' is not a valid value of {name}"));
        self.text(name).map(|text| text.parse().map_err(|_| bad(text))).transpose()
    }

    /// Returns a number within limits, if the field exists.
    pub(super) fn within(&self, name: &str, limits: std::ops::RangeInclusive<i32>) -> Result<Option<i32>, Refusal> {
        let number = self.number(name)?;
        match number {
            Some(number) if !limits.contains(&number) => {
                let (from, to) = (limits.start(), limits.end());
                Err(refusal("ValidationError", format!("{name} '{number}' must be between {from} and {to}")))
            }
            number => Ok(number),
        }
    }

    fn member(&self, list: &str, number: usize) -> String {
        if self.is_ec2() { format!("{list}.{number}") } else { format!("{list}.member.{number}") }
    }

    /// Returns the values of a list.
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        // An empty list is a field with the name of the list.
        let _ = self.text(name);
        (1..).map_while(|number| self.text(&self.member(name, number))).collect()
    }

    /// Returns the prefixes of the fields of each item of a list.
    pub(super) fn items(&self, name: &str) -> Vec<String> {
        let _ = self.text(name);
        (1..).map(|number| self.member(name, number)).take_while(|item| self.has(item)).collect()
    }

    /// Returns true if the request has a structure with this name.
    pub(super) fn has(&self, name: &str) -> bool {
        let inside = format!("{name}.");
        self.params.range(inside.clone()..).next().is_some_and(|(key, _)| key.starts_with(&inside))
    }

    /// Returns pairs of `Key` and `Value`.
    pub(super) fn pairs(&self, name: &str) -> Result<BTreeMap<String, String>, Refusal> {
        let mut pairs = BTreeMap::new();
        for item in self.items(name) {
            let key = self.need(&format!("{item}.Key"))?;
            let value = self.text(&format!("{item}.Value")).unwrap_or_default();
            if pairs.insert(key.to_owned(), value.to_owned()).is_some() {
                let code = if self.is_ec2() { "InvalidParameterValue" } else { "DuplicateTagKeys" };
                return Err(refusal(code, format!("The key '{key}' is there more than once")));
            }
        }
        Ok(pairs)
    }

    /// Returns the parameters that the simulation has not read.
    pub(super) fn unread(&self) -> Vec<String> {
        let read = self.read.borrow();
        self.params.keys().filter(|key| !read.contains(*key)).cloned().collect()
    }

    /// Wraps a response in its envelope.
    pub(super) fn wrapped(&self, answer: Answer) -> (u16, String) {
        let operation = &self.operation;
        if self.is_json {
            return match answer {
                Ok(inner) => (200, inner),
                Err(Refusal { status, code, message }) => {
                    (status, serde_json::json!({ "__type": code, "message": message }).to_string())
                }
            };
        }
        match (answer, self.is_ec2()) {
            (Ok(inner), true) => {
                (200, format!("<{operation}Response><requestId>1</requestId>{inner}</{operation}Response>"))
            }
            (Ok(inner), false) if self.is_rest => (200, element(&format!("{operation}Response"), &inner)),
            (Ok(inner), false) => {
                let result = element(&format!("{operation}Result"), &inner);
                let metadata = "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>";
                (200, element(&format!("{operation}Response"), &format!("{result}{metadata}")))
            }
            (Err(Refusal { status, code, message }), ec2) => {
                let error = text("Code", code) + &text("Message", message);
                let body = if ec2 {
                    format!("<Response><Errors><Error>{error}</Error></Errors><RequestID>1</RequestID></Response>")
                } else {
                    let side = if status < 500 { "Sender" } else { "Receiver" };
                    let error = element("Error", &(text("Type", side) + &error));
                    format!("<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>")
                };
                (status, body)
            }
        }
    }
}

/// Returns an element that contains elements.
pub(super) fn element(name: &str, inner: &str) -> String {
    format!("<{name}>{inner}</{name}>")
}

/// Returns an element that contains text.
pub(super) fn text(name: &str, value: impl Display) -> String {
    let escaped = value.to_string().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    element(name, &escaped)
}

/// Returns an element that contains text, if there is a value.
pub(super) fn optional(name: &str, value: Option<impl Display>) -> String {
    value.map(|value| text(name, value)).unwrap_or_default()
}

/// Returns an ELB v2 list of elements.
pub(super) fn members(name: &str, inner: impl IntoIterator<Item = String>) -> String {
    element(name, &inner.into_iter().map(|inner| element("member", &inner)).collect::<String>())
}

/// Returns an ELB v2 list of texts.
pub(super) fn texts<T: Display>(name: &str, values: impl IntoIterator<Item = T>) -> String {
    element(name, &values.into_iter().map(|value| text("member", value)).collect::<String>())
}

/// Returns an EC2 list of elements.
pub(super) fn set(name: &str, inner: impl IntoIterator<Item = String>) -> String {
    element(name, &inner.into_iter().map(|inner| element("item", &inner)).collect::<String>())
}

/// Returns pairs in the form of ELB v2.
pub(super) fn pairs(name: &str, pairs: &BTreeMap<String, String>) -> String {
    members(name, pairs.iter().map(|(key, value)| text("Key", key) + &text("Value", value)))
}

/// Returns tags in the form of EC2.
pub(super) fn tag_set(tags: &BTreeMap<String, String>) -> String {
    set("tagSet", tags.iter().map(|(key, value)| text("key", key) + &text("value", value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_and_what_nobody_looks_at_is_told() {
        let request = Request::parse(
            "Action=AddTags&Version=2015-12-01&ResourceArns.member.1=a%3Ab&Tags.member.1.Key=x+y&Tags.member.1.Value=&Odd=1",
        );
        assert_eq!(request.operation, "AddTags");
        assert!(request.is_write() && !request.is_ec2());
        assert_eq!(request.list("ResourceArns"), ["a:b"]);
        assert_eq!(request.pairs("Tags"), Ok(BTreeMap::from([("x y".to_owned(), String::new())])));
        assert_eq!(request.unread(), ["Odd"]);
        let missing = request.need("None").unwrap_err();
        assert_eq!((missing.status, missing.code.as_str()), (400, "ValidationError"));
    }

    #[test]
    fn answers_have_the_envelope_of_their_service() {
        let elb = Request::parse("Action=DescribeTags");
        let ec2 = Request::parse("Action=DescribeVpcs");
        let body = |request: &Request, answer| request.wrapped(answer).1;
        insta::assert_snapshot!(body(&elb, Ok(text("A", "<&>"))), @"<DescribeTagsResponse><DescribeTagsResult><A>&lt;&amp;&gt;</A></DescribeTagsResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></DescribeTagsResponse>");
        insta::assert_snapshot!(body(&ec2, Ok(set("vpcSet", []))), @"<DescribeVpcsResponse><requestId>1</requestId><vpcSet></vpcSet></DescribeVpcsResponse>");
        insta::assert_snapshot!(body(&elb, Err(refusal("C", "m"))), @"<ErrorResponse><Error><Type>Sender</Type><Code>C</Code><Message>m</Message></Error><RequestId>1</RequestId></ErrorResponse>");
        insta::assert_snapshot!(body(&ec2, Err(refusal("C", "m"))), @"<Response><Errors><Error><Code>C</Code><Message>m</Message></Error></Errors><RequestID>1</RequestID></Response>");
    }
}
