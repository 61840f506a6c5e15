//! `admission.k8s.io/v1`: the API server's requests to a webhook and the responses, with the fields that are used.

use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The API version in use.
pub const API_VERSION: &str = "admission.k8s.io/v1";

/// An AdmissionReview that asks.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Review {
    /// The request; absent in what is not a review.
    pub request: Option<Request>,
}

/// The object to admit.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    /// Names the question in the answer.
    pub uid: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    /// The namespace; objects that are created may not carry it themselves.
    pub namespace: String,
    /// The object after the change.
    pub object: Value,
    /// The object before the change, if it is changed.
    pub old_object: Value,
}

impl Request {
    /// Returns true if the request creates the object.
    #[must_use]
    pub fn creates(&self) -> bool {
        self.operation == "CREATE"
    }
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdmissionResponse {
    /// The reason, where the object is not admitted.
    pub denied: Option<String>,
    /// The warnings shown to the author of an object that is admitted.
    pub warnings: Vec<String>,
    /// Operations of a JSON patch on the object.
    pub patch: Vec<Value>,
}

impl AdmissionResponse {
    /// Admits the object as it is.
    #[must_use]
    pub fn allowed() -> Self {
        Self::default()
    }

    /// Denies the object.
    #[must_use]
    pub fn denied(why: impl Into<String>) -> Self {
        Self { denied: Some(why.into()), ..Self::default() }
    }

    /// The AdmissionReview that answers the question of this UID.
    #[must_use]
    pub fn review(self, uid: &str) -> Value {
        let mut response = Map::new();
        let mut insert = |field: &str, value| response.insert(field.to_owned(), value);
        insert("uid", json!(uid));
        insert("allowed", json!(self.denied.is_none()));
        if let Some(message) = self.denied {
            insert("status", json!({ "code": 403, "reason": "Forbidden", "message": message }));
        }
        if !self.warnings.is_empty() {
            insert("warnings", json!(self.warnings));
        }
        if !self.patch.is_empty() {
            insert("patchType", json!("JSONPatch"));
            insert("patch", json!(ByteString(Value::Array(self.patch).to_string().into_bytes())));
        }
        json!({ "apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_written_as_the_api_server_reads_them() {
        for (answer, expected) in [
            (AdmissionResponse::allowed(), json!({"uid": "u", "allowed": true})),
            (
                AdmissionResponse::denied("no"),
                json!({"uid": "u", "allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "no"}}),
            ),
            (
                AdmissionResponse {
                    warnings: vec!["look".to_owned()],
                    patch: vec![json!({"op": "remove", "path": "/a"})],
                    denied: None,
                },
                json!({"uid": "u", "allowed": true, "warnings": ["look"], "patchType": "JSONPatch",
                    "patch": "W3sib3AiOiJyZW1vdmUiLCJwYXRoIjoiL2EifV0="}),
            ),
        ] {
            let review = answer.review("u");
            assert_eq!(
                (&review["apiVersion"], &review["kind"]),
                (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
            );
            assert_eq!(review["response"], expected);
        }
    }

    #[test]
    fn questions_are_read_whatever_is_missing() {
        let text = json!({"kind": "AdmissionReview", "request": {"uid": "u", "operation": "CREATE", "object": {"a": 1}, "oldObject": null}});
        let request = serde_json::from_value::<Review>(text).unwrap().request.unwrap();
        assert!(request.creates());
        assert_eq!((request.object, request.old_object), (json!({"a": 1}), Value::Null));
        assert!(serde_json::from_str::<Review>("{}").unwrap().request.is_none());
    }
}
