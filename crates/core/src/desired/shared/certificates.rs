//! Certificates that users name by ARN.

use crate::model::CertificateArn;

/// The fix for a text that is not the ARN of a certificate.
pub(in crate::desired) const FIX: &str =
    "write ARNs of ACM or IAM certificates, separated by commas: arn:aws:acm:<region>:<account>:certificate/<id>";

/// Returns the certificates of a list in order, without repetitions.
///
/// # Errors
/// Returns a message for each entry that is not the ARN of a certificate, in the order of the list.
pub(in crate::desired) fn listed(written: Vec<String>) -> Result<Vec<CertificateArn>, Vec<String>> {
    let (mut certificates, mut mistakes) = (Vec::new(), Vec::new());
    for arn in written.into_iter().map(CertificateArn::new) {
        if !arn.looks_right() {
            mistakes.push(format!("`{arn}` is not the ARN of a certificate"));
        } else if !certificates.contains(&arn) {
            certificates.push(arn);
        }
    }
    if mistakes.is_empty() { Ok(certificates) } else { Err(mistakes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let (a, b) = ("arn:aws:acm:eu-west-1:1:certificate/a", "arn:aws:acm:eu-west-1:1:certificate/b");
        let wrong = |text: &str| format!("`{text}` is not the ARN of a certificate");
        for (written, expected) in [
            (vec![], Ok(vec![])),
            (vec![b, a, b], Ok(vec![b, a])),
            (vec!["x", a, "y"], Err(vec![wrong("x"), wrong("y")])),
        ] {
            let expected = expected.map(|arns: Vec<&str>| arns.into_iter().map(CertificateArn::new).collect());
            let list = written.iter().map(|&text| text.to_owned()).collect();
            assert_eq!(listed(list), expected, "{written:?}");
        }
    }
}
