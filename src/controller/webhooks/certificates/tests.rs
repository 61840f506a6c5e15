use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn start() -> SystemTime {
    UNIX_EPOCH + 20_000 * DAY
}

fn wanted() -> Vec<String> {
    names("hooks", "kube-system")
}

fn stepped(data: &mut BTreeMap<String, ByteString>, step: Step, at: SystemTime) {
    take(step, data, &wanted(), at, 90 * DAY).unwrap();
}

fn keys(data: &BTreeMap<String, ByteString>) -> Vec<&str> {
    data.keys().map(String::as_str).collect()
}

#[test]
fn a_certificate_is_for_the_names_of_the_service() {
    assert_eq!(wanted(), ["hooks.kube-system", "hooks.kube-system.svc", "hooks.kube-system.svc.cluster.local"]);
    let mut data = BTreeMap::new();
    stepped(&mut data, Step::Make, start());
    assert_eq!(keys(&data), ["ca.crt", "tls.crt", "tls.key"]);
    let held = StoredCertificates::read(&data);
    let leaf = held.serving.as_ref().unwrap();
    assert_eq!((&leaf.names, leaf.made, leaf.until), (&wanted(), unix(start()), unix(start() + 90 * DAY)));
    assert_eq!(held.authorities.len(), 1);
    assert_eq!(held.bundle().as_bytes(), data[BUNDLE].0);
}

#[test]
fn what_is_done_depends_on_what_is_held_and_on_the_time() {
    let timing = Timing::of(90 * DAY);
    assert_eq!(
        (timing.poll, timing.settle, timing.overlap),
        (Duration::from_secs(60), Duration::from_secs(120), Duration::from_secs(600))
    );
    let mut data = BTreeMap::new();
    let check = |data: &BTreeMap<String, ByteString>, at: Duration, published: bool, expected: Step, case: &str| {
        assert_eq!(
            decide(unix(start() + at), &StoredCertificates::read(data), &wanted(), published, timing),
            expected,
            "{case}"
        );
    };
    let (minute, second) = (Duration::from_secs(60), Duration::from_secs(1));
    check(&data, Duration::ZERO, true, Step::Make, "nothing is there");
    stepped(&mut data, Step::Make, start());
    check(&data, Duration::ZERO, false, Step::Keep, "new");
    check(&data, 59 * DAY, true, Step::Keep, "not yet two thirds");
    check(&data, 60 * DAY, true, Step::Prepare, "two thirds");
    check(&data, 60 * DAY, false, Step::Prepare, "two thirds, whoever trusts it");
    check(&data, 90 * DAY, true, Step::Make, "over");
    let renamed = names("hooks", "other");
    assert_eq!(
        decide(unix(start()), &StoredCertificates::read(&data), &renamed, true, timing),
        Step::Make,
        "for another Service"
    );
    let mut mixed = data.clone();
    let mut other = BTreeMap::new();
    stepped(&mut other, Step::Make, start());
    mixed.insert(KEY.to_owned(), other[KEY].clone());
    check(&mixed, Duration::ZERO, true, Step::Make, "another's key");
    mixed = data.clone();
    mixed.insert(BUNDLE.to_owned(), other[BUNDLE].clone());
    check(&mixed, Duration::ZERO, true, Step::Make, "another's authority");

    let renewed = start() + 60 * DAY;
    stepped(&mut data, Step::Prepare, renewed);
    assert_eq!(keys(&data), ["ca.crt", "next.crt", "next.key", "tls.crt", "tls.key"]);
    check(&data, 60 * DAY, true, Step::Keep, "published just now");
    check(&data, 60 * DAY + 2 * minute, false, Step::Keep, "not published");
    check(&data, 60 * DAY + 2 * minute, true, Step::Switch, "published and settled");
    check(&data, 90 * DAY, false, Step::Switch, "the old one is over, whoever trusts the new one");
    check(&data, 150 * DAY, true, Step::Make, "both are over");

    let old = StoredCertificates::read(&data).serving.unwrap();
    stepped(&mut data, Step::Switch, renewed + 2 * minute);
    assert_eq!(keys(&data), ["ca.crt", "tls.crt", "tls.key"]);
    let held = StoredCertificates::read(&data);
    assert_ne!(held.serving.as_ref().unwrap().key.cert, old.key.cert);
    assert_eq!(held.authorities.len(), 2);
    check(&data, 60 * DAY + 10 * minute - second, true, Step::Keep, "some replica may serve the old one");
    check(&data, 60 * DAY + 10 * minute, true, Step::Prune, "nobody does any more");
    stepped(&mut data, Step::Prune, renewed + 10 * minute);
    check(&data, 60 * DAY + 10 * minute, true, Step::Keep, "one authority is left");
    assert_eq!(StoredCertificates::read(&data).authorities.len(), 1);
    assert_eq!(StoredCertificates::read(&data).serving.unwrap().made, unix(renewed));
}

#[test]
fn authorities_that_are_over_are_not_carried_along_and_what_others_keep_stays() {
    let mut data = BTreeMap::from([
        ("note".to_owned(), ByteString(b"mine".to_vec())),
        (BUNDLE.to_owned(), ByteString(b"no PEM".to_vec())),
    ]);
    stepped(&mut data, Step::Make, start());
    stepped(&mut data, Step::Make, start() + DAY);
    assert_eq!(StoredCertificates::read(&data).authorities.len(), 2);
    stepped(&mut data, Step::Make, start() + 90 * DAY);
    assert_eq!(StoredCertificates::read(&data).authorities.len(), 2);
    assert_eq!(data["note"].0, b"mine");
}

#[test]
fn what_is_wrong_with_a_certificate_is_told_without_its_key() {
    let provider = aws_lc_rs::default_provider();
    let mut data = BTreeMap::new();
    stepped(&mut data, Step::Make, start());
    let mut other = BTreeMap::new();
    stepped(&mut other, Step::Make, start());
    let wrong = |certificate: &[u8], key: &[u8]| Leaf::read(certificate, key, &provider).unwrap_err().to_string();
    insta::assert_snapshot!(wrong(b"", &data[KEY].0), @"there is no certificate");
    insta::assert_snapshot!(wrong(&data[CERTIFICATE].0, b"secret"), @"the key is not PEM");
    insta::assert_snapshot!(wrong(&data[CERTIFICATE].0, &other[KEY].0), @"the key does not belong to the certificate: keys may not be consistent: KeyMismatch");
    insta::assert_snapshot!(wrong(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &data[KEY].0), @"the certificate cannot be read: Parsing Error: Der(UnexpectedTag { expected: Some(Tag(16)), actual: Tag(0) })");
}
