//! The Secret of an OpenID Connect client.

use std::collections::BTreeMap;

use crate::model::{ClientId, ObjectName, OidcSecret, SecretVersion};

/// The keys of the client's id: the second is an older one.
const CLIENT_ID: [&str; 2] = ["clientID", "clientId"];
const CLIENT_SECRET: &str = "clientSecret";

/// The label that every Secret of an identity provider must carry: `--required-secrets-label`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredLabel {
    key: String,
    value: String,
}

impl RequiredLabel {
    /// Returns the label that `key=value` names; `None` where there is no key or no `=`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (key, value) = text.split_once('=')?;
        let (key, value) = (key.trim(), value.trim());
        (!key.is_empty() && !value.contains(['=', ','])).then(|| Self { key: key.to_owned(), value: value.to_owned() })
    }

    /// Returns true if an object with these labels carries it.
    #[must_use]
    pub fn is_among(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(&self.key) == Some(&self.value)
    }
}

impl std::fmt::Display for RequiredLabel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// The reason why a Secret cannot be used. It contains nothing of the Secret's content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableSecret {
    /// The Secret does not exist.
    #[error("the Secret `{}` does not exist in the namespace `{}`", .0.name, .0.namespace)]
    Missing(ObjectName),
    /// A key is missing or empty.
    #[error("the Secret `{secret}` has no key `{key}`, or the key has no value")]
    Lacking {
        /// The Secret.
        secret: ObjectName,
        /// The key.
        key: &'static str,
    },
    /// The value of a key is not text.
    #[error("the key `{key}` of the Secret `{secret}` holds a value that is not text")]
    NoText {
        /// The Secret.
        secret: ObjectName,
        /// The key.
        key: &'static str,
    },
    /// The Secret does not carry the label of `--required-secrets-label`.
    #[error(
        "the Secret `{secret}` does not carry the label `{label}`, and --required-secrets-label={label} allows no other to be used"
    )]
    Unlabelled {
        /// The Secret.
        secret: ObjectName,
        /// The label.
        label: RequiredLabel,
    },
    /// The API server does not allow the controller to read it.
    #[error("the controller may not read the Secret `{secret}`: {message}")]
    Forbidden {
        /// The Secret.
        secret: ObjectName,
        /// The API server's words.
        message: String,
    },
}

impl UnusableSecret {
    /// Returns the fix.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Missing(_) => {
                format!("create it with the keys `{}` and `{CLIENT_SECRET}`, or correct `secretName`", CLIENT_ID[0])
            }
            Self::Lacking { .. } => "add it".to_owned(),
            Self::NoText { .. } => "put the text there as the identity provider shows it".to_owned(),
            Self::Unlabelled { secret: ObjectName { namespace, name }, label } => format!(
                "if this Secret is meant for it, `kubectl label secret {name} --namespace {namespace} {label}`; otherwise name another"
            ),
            Self::Forbidden { secret: ObjectName { namespace, name }, .. } => format!(
                "create in the namespace `{namespace}` a Role that allows get, list and watch on the resource `secrets` with the \
                 resourceName `{name}`, and a RoleBinding of it to the controller's ServiceAccount"
            ),
        }
    }
}

/// Reads a Secret. White space after the id and control characters after the secret are removed, as files end in them.
///
/// # Errors
/// When a key is missing or its value cannot be used.
pub fn read(
    secret: &ObjectName,
    version: SecretVersion,
    data: &BTreeMap<String, Vec<u8>>,
) -> Result<OidcSecret, UnusableSecret> {
    let id_key = if data.contains_key(CLIENT_ID[0]) { CLIENT_ID[0] } else { CLIENT_ID[1] };
    let text = |key: &'static str, reported: &'static str| match data.get(key).map(|bytes| std::str::from_utf8(bytes)) {
        None => Err(UnusableSecret::Lacking { secret: secret.clone(), key: reported }),
        Some(Err(_)) => Err(UnusableSecret::NoText { secret: secret.clone(), key }),
        Some(Ok(text)) => Ok(text),
    };
    let client_id = text(id_key, CLIENT_ID[0])?.trim_end();
    let client_secret = text(CLIENT_SECRET, CLIENT_SECRET)?.trim_end_matches(char::is_control);
    for (value, key) in [(client_id, CLIENT_ID[0]), (client_secret, CLIENT_SECRET)] {
        if value.is_empty() {
            return Err(UnusableSecret::Lacking { secret: secret.clone(), key });
        }
    }
    Ok(OidcSecret { version, client_id: ClientId(client_id.to_owned()), client_secret: client_secret.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(data: &[(&str, &[u8])]) -> Result<(String, String), String> {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
        let version = SecretVersion { uid: "u".to_owned(), resource_version: "1".to_owned() };
        read(&ObjectName::new("shop", "oidc"), version, &data)
            .map(|read| (read.client_id.0, read.client_secret))
            .map_err(|error| format!("{error}; {}", error.fix()))
    }

    #[test]
    fn what_files_end_in_is_left_out() {
        for (data, id, secret) in [
            ([("clientID", &b"id \n"[..]), ("clientSecret", &b" secret \r\n"[..])], "id", " secret "),
            ([("clientId", &b" id"[..]), ("clientSecret", &b"s"[..])], " id", "s"),
        ] {
            assert_eq!(said(&data), Ok((id.to_owned(), secret.to_owned())));
        }
        let both = [("clientId", &b"old"[..]), ("clientID", &b"new"[..]), ("clientSecret", &b"s"[..])];
        assert_eq!(said(&both), Ok(("new".to_owned(), "s".to_owned())));
    }

    #[test]
    fn what_is_missing_is_named_and_nothing_is_shown() {
        let wrong: [&[(&str, &[u8])]; 5] = [
            &[],
            &[("clientID", b"id")],
            &[("clientID", b" \n"), ("clientSecret", b"hush")],
            &[("clientId", b"id"), ("clientSecret", b"\n")],
            &[("clientID", b"id"), ("clientSecret", b"hush\xff")],
        ];
        let reported: Vec<String> = wrong.iter().map(|data| said(data).unwrap_err()).collect();
        insta::assert_snapshot!(reported.join("\n"), @"
        the Secret `shop/oidc` has no key `clientID`, or the key has no value; add it
        the Secret `shop/oidc` has no key `clientSecret`, or the key has no value; add it
        the Secret `shop/oidc` has no key `clientID`, or the key has no value; add it
        the Secret `shop/oidc` has no key `clientSecret`, or the key has no value; add it
        the key `clientSecret` of the Secret `shop/oidc` holds a value that is not text; put the text there as the identity provider shows it
        ");
        let secret = ObjectName::new("shop", "oidc");
        let forbidden =
            UnusableSecret::Forbidden { secret: secret.clone(), message: "secrets \"oidc\" is forbidden".to_owned() };
        let label = RequiredLabel::parse("use=oidc").unwrap();
        let unlabelled = UnusableSecret::Unlabelled { secret: secret.clone(), label };
        let others = [UnusableSecret::Missing(secret), forbidden, unlabelled].map(|e| format!("{e}; {}", e.fix()));
        insta::assert_snapshot!(others.join("\n"), @r#"
        the Secret `oidc` does not exist in the namespace `shop`; create it with the keys `clientID` and `clientSecret`, or correct `secretName`
        the controller may not read the Secret `shop/oidc`: secrets "oidc" is forbidden; create in the namespace `shop` a Role that allows get, list and watch on the resource `secrets` with the resourceName `oidc`, and a RoleBinding of it to the controller's ServiceAccount
        the Secret `shop/oidc` does not carry the label `use=oidc`, and --required-secrets-label=use=oidc allows no other to be used; if this Secret is meant for it, `kubectl label secret oidc --namespace shop use=oidc`; otherwise name another
        "#);
    }
}
