//! The environment's settings for credentials, and the explanation of an environment that has none.

use super::NoCredentials;

/// Both are put into pods as these start.
const NEW_PODS: &str = "and restart its pods, because EKS injects either when pods start";

/// The variables that name sources of credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hints {
    access_key: bool,
    secret_key: bool,
    pub(super) profile: Option<String>,
    pub(super) role: Option<String>,
    pub(super) token_file: Option<String>,
    pub(super) session: Option<String>,
    container_url: Option<String>,
    container_token_file: Option<String>,
}

impl Hints {
    pub(super) fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
        Self {
            access_key: get("AWS_ACCESS_KEY_ID").is_some(),
            secret_key: get("AWS_SECRET_ACCESS_KEY").or_else(|| get("SECRET_ACCESS_KEY")).is_some(),
            profile: get("AWS_PROFILE"),
            role: get("AWS_ROLE_ARN"),
            token_file: get("AWS_WEB_IDENTITY_TOKEN_FILE"),
            session: get("AWS_ROLE_SESSION_NAME").or_else(|| get("HOSTNAME")),
            container_url: get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
                .or_else(|| get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")),
            container_token_file: get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
        }
    }

    /// Returns the error for a key of which one half is missing.
    pub(super) fn incomplete_key(&self) -> Option<NoCredentials> {
        let (there, missing) = match (self.access_key, self.secret_key) {
            (true, false) => ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
            (false, true) => ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
            _ => return None,
        };
        Some(NoCredentials::new(format!("{there} is set and {missing} is not"), "set both, or neither"))
    }

    /// Returns the error for a ServiceAccount's role of which one half is missing.
    pub(super) fn incomplete_role(&self) -> Option<NoCredentials> {
        match (&self.role, &self.token_file) {
            (None, Some(_)) => Some(NoCredentials::new(
                "AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not",
                format!("annotate the controller's ServiceAccount with `eks.amazonaws.com/role-arn` {NEW_PODS}"),
            )),
            (Some(role), None) => Some(NoCredentials::new(
                format!("AWS_ROLE_ARN is {role} and AWS_WEB_IDENTITY_TOKEN_FILE is not set"),
                "let EKS set both by the annotation `eks.amazonaws.com/role-arn` on the controller's ServiceAccount, or mount a ServiceAccount token for the audience `sts.amazonaws.com` and name its file in AWS_WEB_IDENTITY_TOKEN_FILE",
            )),
            _ => None,
        }
    }

    pub(super) fn keys(&self, said: &str) -> NoCredentials {
        NoCredentials::new(
            format!("those of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY cannot be used: {said}"),
            "set both to an access key of IAM",
        )
    }

    pub(super) fn profile(&self, said: &str) -> NoCredentials {
        let profile = self.profile.as_deref().unwrap_or("default");
        NoCredentials::new(
            format!("the profile `{profile}` gives none: {said}"),
            "check the profile in ~/.aws/config and ~/.aws/credentials, or in the files that AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name",
        )
    }

    /// EKS Pod Identity, or another agent of that kind.
    pub(super) fn container(&self, said: &str) -> NoCredentials {
        let url = self.container_url.as_deref().unwrap_or_default();
        let said = said.trim_end_matches('.');
        let unreadable = self.container_token_file.as_deref().and_then(|file| Some((file, std::fs::read(file).err()?)));
        if let Some((file, why)) = unreadable {
            return NoCredentials::new(
                format!(
                    "the token for EKS Pod Identity cannot be read from `{file}`, which AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names: {why}"
                ),
                "restart the controller's pods, so that EKS mounts it, and run them with an fsGroup that can read it",
            );
        }
        if said.contains("Non-success status") || said.contains("failed to load credentials") {
            return NoCredentials::new(
                format!("the agent of EKS Pod Identity at {url} gives none: {said}"),
                "give the controller's ServiceAccount an association with `aws eks create-pod-identity-association`, let the role's trust policy allow `sts:AssumeRole` and `sts:TagSession` to `pods.eks.amazonaws.com`, and look at the log of the agent on this node",
            );
        }
        NoCredentials::new(
            format!("the agent of EKS Pod Identity at {url} does not answer: {said}"),
            "install the add-on `eks-pod-identity-agent`, and see that its DaemonSet runs on this node and that no NetworkPolicy blocks 169.254.170.23",
        )
    }

    /// No source is set up, and the instance has none.
    pub(super) fn nothing(&self, instance: &str) -> NoCredentials {
        if let Some(profile) = &self.profile {
            return NoCredentials::new(
                format!("AWS_PROFILE is `{profile}`, and there is no such profile"),
                "name one that ~/.aws/config or ~/.aws/credentials has, or name the files in AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE",
            );
        }
        NoCredentials::new(
            format!(
                "the pod has neither a role of its ServiceAccount (AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE are not set) nor EKS Pod Identity (AWS_CONTAINER_CREDENTIALS_FULL_URI is not set), there is neither AWS_ACCESS_KEY_ID nor a profile, and the instance gives none: {}",
                said_by_instance(instance)
            ),
            format!(
                "annotate the controller's ServiceAccount with `eks.amazonaws.com/role-arn`, or give it an association with `aws eks create-pod-identity-association`, {NEW_PODS}; outside of EKS set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ),
        )
    }
}

/// The SDK's words on the instance's metadata, shorter where they are known.
fn said_by_instance(said: &str) -> String {
    if said.contains("AWS_EC2_METADATA_DISABLED") {
        "AWS_EC2_METADATA_DISABLED disables its metadata service".to_owned()
    } else if said.contains("could not communicate with IMDS") {
        "its metadata service does not answer".to_owned()
    } else if said.contains("404") {
        "it has no role".to_owned()
    } else {
        said.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(variables: &[(&str, &str)]) -> Hints {
        Hints::read(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    fn text(reported: Option<NoCredentials>) -> String {
        reported.map_or_else(|| "-".to_owned(), |reported| format!("{}; {}", reported.message, reported.fix))
    }

    #[test]
    fn halves_are_told() {
        let (key, secret) = (("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y"));
        assert_eq!(text(hints(&[key, secret]).incomplete_key()), "-");
        assert_eq!(text(hints(&[]).incomplete_key()), "-");
        insta::assert_snapshot!(text(hints(&[key, ("AWS_SECRET_ACCESS_KEY", " ")]).incomplete_key()), @"AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not; set both, or neither");
        insta::assert_snapshot!(text(hints(&[secret]).incomplete_key()), @"AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not; set both, or neither");
        let (role, file) = (("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"));
        assert_eq!(text(hints(&[role, file]).incomplete_role()), "-");
        insta::assert_snapshot!(text(hints(&[file]).incomplete_role()), @"AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not; annotate the controller's ServiceAccount with `eks.amazonaws.com/role-arn` and restart its pods, because EKS injects either when pods start");
        insta::assert_snapshot!(text(hints(&[role]).incomplete_role()), @"AWS_ROLE_ARN is arn:aws:iam::1:role/r and AWS_WEB_IDENTITY_TOKEN_FILE is not set; let EKS set both by the annotation `eks.amazonaws.com/role-arn` on the controller's ServiceAccount, or mount a ServiceAccount token for the audience `sts.amazonaws.com` and name its file in AWS_WEB_IDENTITY_TOKEN_FILE");
    }

    #[test]
    fn the_instances_words_are_made_short() {
        for (said, short) in [
            (
                "x: IMDS disabled by AWS_EC2_METADATA_DISABLED env var set to `true`",
                "AWS_EC2_METADATA_DISABLED disables its metadata service",
            ),
            ("y: could not communicate with IMDS: z", "its metadata service does not answer"),
            ("received 404 from IMDS", "it has no role"),
            ("something else", "something else"),
        ] {
            assert_eq!(said_by_instance(said), short);
        }
    }
}
