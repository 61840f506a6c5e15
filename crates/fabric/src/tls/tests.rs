use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, SignatureAlgorithm, date_time_ymd,
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

fn made(names: &[&str], algorithm: &'static SignatureAlgorithm, last_year: i32) -> Certificate {
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.not_after = date_time_ymd(last_year, 1, 1);
    let key = KeyPair::generate_for(algorithm).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Certificate { certificate: certificate.pem(), key: key.serialize_pem() }
}

fn settings(certificates: &[&Certificate]) -> Settings {
    Settings {
        certificates: certificates.iter().map(|certificate| (*certificate).clone()).collect(),
        alpn: vec![],
        clients: None,
    }
}

/// Connects, and returns what each side knows of the other.
async fn connect(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> Result<(CertificateDer<'static>, Vec<CertificateDer<'static>>, Option<Vec<u8>>), String> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(client);
    let (accepted, connected) = tokio::join!(TlsAcceptor::from(server).accept(far), connector.connect(name, near));
    let accepted = accepted.map_err(|error| error.to_string())?;
    let connected = connected.map_err(|error| error.to_string())?;
    let of_server = connected.get_ref().1.peer_certificates().unwrap()[0].clone();
    let of_client = accepted.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    Ok((of_server.into_owned(), of_client, accepted.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)))
}

fn der(certificate: &Certificate) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(certificate.certificate.as_bytes()).unwrap()
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate() {
    let p256 = &PKCS_ECDSA_P256_SHA256;
    let default = made(&["default.test", "shop.test"], &PKCS_ECDSA_P384_SHA384, 2090);
    let wildcard = made(&["*.shop.test"], &PKCS_ECDSA_P384_SHA384, 2090);
    let exact = made(&["Www.shop.test"], p256, 2030);
    let longer = made(&["two.test", "www.shop.test"], &PKCS_ECDSA_P384_SHA384, 2029);
    let sooner = made(&["three.test"], p256, 2030);
    let later = made(&["three.test"], p256, 2031);
    let all = [&default, &wildcard, &exact, &longer, &sooner, &later];
    let config = settings(&all).config().unwrap();
    for (name, expected) in [
        ("unknown.test", &default),
        ("shop.test", &default),
        ("a.shop.test", &wildcard),
        ("A.SHOP.test", &wildcard),
        ("a.b.shop.test", &default),
        ("www.shop.test", &longer),
        ("three.test", &later),
        // No name is sent for an address.
        ("192.0.2.1", &default),
    ] {
        let (got, _, _) = connect(config.clone(), any_certificate(&[]).unwrap(), name).await.unwrap();
        assert_eq!(got, der(expected), "{name}");
    }
    let alone = settings(&[&default, &exact]).config().unwrap();
    let (got, _, _) = connect(alone, any_certificate(&[]).unwrap(), "www.shop.test").await.unwrap();
    assert_eq!(got, der(&exact));
}

#[tokio::test]
async fn elliptic_curves_come_before_rsa() {
    let rsa = made(&["a.test"], &PKCS_RSA_SHA256, 2090);
    let curve = made(&["a.test"], &PKCS_ECDSA_P256_SHA256, 2030);
    let config = settings(&[&rsa, &rsa, &curve]).config().unwrap();
    let (got, _, _) = connect(config, any_certificate(&[]).unwrap(), "a.test").await.unwrap();
    assert_eq!(got, der(&curve));
}

#[tokio::test]
async fn the_protocol_is_agreed_on() {
    let mut settings = settings(&[&made(&["a.test"], &PKCS_ECDSA_P256_SHA256, 2090)]);
    settings.alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let config = settings.config().unwrap();
    for (offered, expected) in [
        (vec![b"http/1.1".as_slice(), b"h2"], Some(b"h2".to_vec())),
        (vec![b"http/1.1".as_slice()], Some(b"http/1.1".to_vec())),
        (vec![], None),
    ] {
        let (_, _, got) = connect(config.clone(), any_certificate(&offered).unwrap(), "a.test").await.unwrap();
        assert_eq!(got, expected);
    }
}

#[test]
fn what_is_not_valid_is_an_error() {
    let good = made(&["a.test"], &PKCS_ECDSA_P256_SHA256, 2090);
    let other = made(&["a.test"], &PKCS_ECDSA_P256_SHA256, 2090);
    let with = |certificate: &str, key: &str| Certificate { certificate: certificate.to_owned(), key: key.to_owned() };
    for (certificate, expected) in [
        (with("", &good.key), "a certificate cannot be read"),
        (
            with("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &good.key),
            "a certificate cannot be read",
        ),
        (with(&good.certificate, ""), "a key cannot be read"),
        (with(&good.certificate, &other.key), "a key cannot be read"),
    ] {
        let error = settings(&[&certificate]).config().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    assert!(matches!(settings(&[]).config(), Err(TlsError::NoCertificate)));
    let mut asking = settings(&[&good]);
    let clients = ClientCertificates { verify: true, trust_store: Some("store".to_owned()), ignore_expiry: false };
    asking.clients = Some((clients.clone(), "no PEM".to_owned()));
    assert!(matches!(asking.config(), Err(TlsError::TrustStore(_))));

    let mut listener = Listener {
        arn: "listener".to_owned(),
        protocol: crate::account::Protocol::Https,
        certificates: vec!["a".to_owned(), "gone".to_owned()],
        alpn: None,
        client_certificates: None,
        attributes: Default::default(),
        default_actions: vec![],
        rules: vec![],
    };
    let mut account = Account::default();
    account.certificates.insert("a".to_owned(), good.clone());
    assert_eq!(Settings::of(&account, &listener, &[]).unwrap(), settings(&[&good]));
    listener.client_certificates = Some(clients);
    assert!(matches!(Settings::of(&account, &listener, &[]), Err(TlsError::TrustStore(_))));
    listener.certificates.reverse();
    assert!(matches!(Settings::of(&account, &listener, &[]), Err(TlsError::NoCertificate)));
}

struct Authority {
    pem: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Root, of tests");
    params.distinguished_name.push(DnType::OrganizationName, "Lab");
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    Authority { pem: issuer.pem(), issuer }
}

fn client(authority: &Authority, last_year: i32) -> Arc<ClientConfig> {
    let mut params = CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CountryName, "US");
    params.distinguished_name.push(DnType::CommonName, "client");
    params.serial_number = Some(vec![0x03, 0xa5, 0xb1].into());
    params.not_before = date_time_ymd(2001, 2, 3);
    params.not_after = date_time_ymd(last_year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let issuer: &Issuer<'_, KeyPair> = &authority.issuer;
    let certificate = params.signed_by(&key, issuer).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let chain = vec![certificate.der().clone()];
    let mut config = (*any_certificate(&[]).unwrap()).clone();
    let own = CertifiedKey::from_der(chain, key, &provider).unwrap();
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(own));
    Arc::new(config)
}

#[tokio::test]
async fn certificates_of_clients() {
    let (ours, foreign) = (authority(), authority());
    let server = made(&["a.test"], &PKCS_ECDSA_P256_SHA256, 2090);
    let config = |verify: bool, ignore_expiry: bool| {
        let mut settings = settings(&[&server]);
        let clients = ClientCertificates { verify, trust_store: Some("store".to_owned()), ignore_expiry };
        settings.clients = Some((clients, ours.pem.clone()));
        settings.config().unwrap()
    };
    for (what, config, client, expected) in [
        ("verified", config(true, false), client(&ours, 2090), Some(1)),
        ("of another authority", config(true, false), client(&foreign, 2090), None),
        ("expired", config(true, false), client(&ours, 2002), None),
        ("expired, which is ignored", config(true, true), client(&ours, 2002), Some(1)),
        ("of another authority, expiry ignored", config(true, true), client(&foreign, 2002), None),
        ("none, verified", config(true, false), any_certificate(&[]).unwrap(), None),
        ("passed through", config(false, false), client(&foreign, 2002), Some(1)),
        ("none, passed through", config(false, false), any_certificate(&[]).unwrap(), Some(0)),
    ] {
        let got = connect(config, client, "a.test").await.ok().map(|(_, chain, _)| chain.len());
        assert_eq!(got, expected, "{what}");
    }

    let (_, chain, _) = connect(config(true, false), client(&ours, 2090), "a.test").await.unwrap();
    let lines = |verified: bool| -> Vec<String> {
        let headers = client_headers(&chain, verified);
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    };
    let [serial, issuer, subject, validity, leaf] = lines(true).try_into().unwrap();
    assert_eq!(serial, "x-amzn-mtls-clientcert-serial-number: 03A5B1");
    assert!(issuer.ends_with("CN=Root\\, of tests") || issuer.contains("O=Lab,CN=Root\\, of tests"), "{issuer}");
    assert_eq!(subject, "x-amzn-mtls-clientcert-subject: CN=client,C=US");
    let expected = "x-amzn-mtls-clientcert-validity: NotBefore=2001-02-03T00:00:00Z;NotAfter=2090-01-01T00:00:00Z";
    assert_eq!(validity, expected);
    let decoded = leaf.split_once(": ").unwrap().1.replace("%20", " ").replace("%0A", "\n");
    assert_eq!(CertificateDer::from_pem_slice(decoded.as_bytes()).unwrap(), chain[0]);
    let [whole] = lines(false).try_into().unwrap();
    assert_eq!(whole.replace("x-amzn-mtls-clientcert: ", ""), leaf.split_once(": ").unwrap().1);
    assert_eq!(client_headers(&[], true), vec![]);
    assert_eq!(client_headers(&[], false), vec![]);
}
