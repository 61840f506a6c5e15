//! Certificates that ACM issues when their hosts are proved in Route 53.

use super::*;
use albatross_core::{
    facts::hosted_zones::zone_of,
    model::{Cause, CertificateStatus, HostedZoneId, ManagedCertificate, ObjectReference, ObservedCertificate},
    plan::Reads,
};

fn wanted(hosts: &[&str]) -> ManagedCertificate {
    let resource = ResourceId::certificate(&ObjectName::new("shop", "web"), hosts[0], false);
    ManagedCertificate {
        tags: tags_of(resource.as_str()),
        resource,
        domain: hosts[0].to_owned(),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        authority: None,
        zones: None,
        cause: Cause {
            object: ObjectReference::ingress(&ObjectName::new("shop", "web")),
            generation: 1,
            field: "create-acm-cert".to_owned(),
        },
    }
}

/// Reads the certificates of the stack as a new process does.
async fn known(world: &World) -> Vec<ObservedCertificate> {
    let inventory = Inventory::new(world.aws.reader().clone(), "demo", vpc());
    inventory.read(&stack(), &Reads { certificates: true, ..Reads::default() }).await.unwrap();
    inventory.observe(&stack()).await.unwrap().certificates.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_issued_when_its_hosts_are_proved_and_goes_when_nothing_uses_it() {
    let world = world();
    world.simulation.set_page_size(1);
    assert_eq!(known(&world).await, []);
    let wanted = wanted(&["shop.example.com", "*.shop.example.com", "shop.example.org"]);
    let arn = world.aws.request_certificate(&wanted, "token").await.unwrap();
    assert_eq!(world.aws.request_certificate(&wanted, "token").await, Ok(arn.clone()));
    let other = world.aws.request_certificate(&wanted, "other").await.unwrap();
    assert_ne!(other, arn);
    assert_eq!(world.aws.delete_certificate(&other).await, Ok(()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let [requested] = known(&world).await.try_into().unwrap();
    assert!(requested.records.is_empty() && wanted.is(&requested) && requested.status == CertificateStatus::Pending);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let [shown] = known(&world).await.try_into().unwrap();
    let zones = world.aws.public_zones().await.unwrap();
    assert_eq!(shown.missing_records().len(), 2);
    for record in shown.missing_records() {
        let zone = zone_of(&record.host, &zones).unwrap();
        assert_eq!(world.aws.create_record(zone, record).await, Ok(true));
        assert_eq!(world.aws.create_record(zone, record).await, Ok(false));
    }
    let wrong = HostedZoneId::new("Z2");
    assert_eq!(code(world.aws.create_record(&wrong, &shown.records[0]).await), "InvalidChangeBatch");
    assert_eq!(known(&world).await[0].status, CertificateStatus::Pending);
    let balancer = world.balancer("web").await.arn;
    let tls = |certificate: &CertificateArn| NewListener {
        protocol: Some(ListenerProtocol::Https),
        default_certificate: Some(certificate.clone()),
        ssl_policy: Some("ELBSecurityPolicy-2016-08".to_owned()),
        ..http(respond("404"))
    };
    let early = world.aws.create_listener(&balancer, 443, &tls(&arn), &Tags::new()).await;
    assert_eq!(code(early), "UnsupportedCertificate");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(known(&world).await[0].is_issued());
    let listener = world.aws.create_listener(&balancer, 443, &tls(&arn), &Tags::new()).await.unwrap();
    assert_eq!(code(world.aws.delete_certificate(&arn).await), "ResourceInUseException");
    world.aws.delete_listener(&listener.arn).await.unwrap();
    assert_eq!(world.aws.delete_certificate(&arn).await, Ok(()));
    for record in shown.missing_records() {
        let zone = zone_of(&record.host, &zones).unwrap();
        assert_eq!(world.aws.delete_record(zone, record).await, Ok(()));
        assert_eq!(world.aws.delete_record(zone, record).await, Ok(()));
    }
    assert!(known(&world).await.is_empty() && world.simulation.inner().account.records.is_empty());
    let state = world.simulation.state();
    assert!(state.is_sound(), "{:?}", state.not_simulated);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_is_not_read_and_what_is_refused_waits() {
    let world = world();
    let inventory = Inventory::new(world.aws.reader().clone(), "demo", vpc());
    let read = async || inventory.read(&stack(), &Reads { certificates: true, ..Reads::default() }).await.unwrap();
    let calls = || world.simulation.calls().iter().map(|call| call.operation.clone()).collect::<Vec<_>>();
    inventory.observe(&stack()).await.unwrap();
    calls();
    read().await;
    assert_eq!(calls(), ["ListCertificates"]);
    read().await;
    assert_eq!(calls(), [""; 0]);
    let wanted = wanted(&["shop.example.com"]);
    let arn = world.aws.request_certificate(&wanted, "token").await.unwrap();
    inventory.record_certificate(&stack(), pending(&arn, &wanted));
    calls();
    // Only what is not issued is looked at, and what ACM does not show yet is known from the request.
    for seconds in [0, 5] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        read().await;
        assert_eq!(calls(), ["DescribeCertificate"]);
        assert!(wanted.is(&inventory.certificate(&stack(), &arn).unwrap()));
    }
    let zones = world.aws.public_zones().await.unwrap();
    let pending = inventory.certificate(&stack(), &arn).unwrap();
    for record in pending.missing_records() {
        world.aws.create_record(zone_of(&record.name, &zones).unwrap(), record).await.unwrap();
        inventory.record_validation(&stack(), &arn, &record.name, true);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    read().await;
    let issued = inventory.certificate(&stack(), &arn).unwrap();
    assert!(issued.is_issued() && issued.missing_records().is_empty());
    calls();
    read().await;
    assert_eq!(calls(), [""; 0]);
    // A refused request is not repeated for a while, and longer the second time.
    let refused = async || inventory.observe(&stack()).await.unwrap().refused_requests;
    for minutes in [10, 20, 40] {
        inventory.record_refused_certificate(&stack(), "other");
        assert_eq!(refused().await, ["other".to_owned()].into());
        tokio::time::sleep(Duration::from_secs(minutes * 60 - 1)).await;
        assert_eq!(refused().await, ["other".to_owned()].into());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(refused().await, BTreeSet::new());
    }
    // Deleted, and its records have yet to go: it is there until they have.
    inventory.record_certificate_deleted(&stack(), &arn);
    let left = inventory.observe(&stack()).await.unwrap();
    assert_eq!(left.certificates.unwrap()[0].status, CertificateStatus::Deleted);
    inventory.record_certificate_gone(&stack(), &arn);
    assert_eq!(inventory.observe(&stack()).await.unwrap().certificates, Some(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_token_has_the_same_answer_for_an_hour_whether_the_certificate_exists_or_not() {
    let world = world();
    let wanted = wanted(&["shop.example.com"]);
    let request = async |token: &str| world.aws.request_certificate(&wanted, token).await.unwrap();
    let (kept, deleted) = (request("kept").await, request("deleted").await);
    world.aws.delete_certificate(&deleted).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3599)).await;
    assert_eq!((request("kept").await, request("deleted").await), (kept.clone(), deleted.clone()));
    assert_eq!(known(&world).await.len(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_ne!((request("kept").await, request("deleted").await), (kept, deleted));
    assert_eq!(known(&world).await.len(), 3);
}

/// Returns a certificate that has just been requested.
fn pending(arn: &CertificateArn, wanted: &ManagedCertificate) -> ObservedCertificate {
    ObservedCertificate {
        arn: arn.clone(),
        resource: wanted.resource.clone(),
        hosts: wanted.hosts.clone(),
        authority: None,
        status: CertificateStatus::Pending,
        records: Vec::new(),
        validated: BTreeSet::new(),
        created: BTreeSet::new(),
    }
}

/// Requests a certificate as the controller does, and returns it.
async fn request(world: &World, inventory: &Inventory, wanted: &ManagedCertificate) -> CertificateArn {
    inventory.read(&stack(), &Reads { certificates: true, ..Reads::default() }).await.unwrap();
    let recent = inventory.observe(&stack()).await.unwrap().recent_certificates;
    let token = wanted.token(recent.deleted.get(&wanted.resource).unwrap_or(&BTreeSet::new()));
    let arn = world.aws.request_certificate(wanted, &token).await.unwrap();
    inventory.record_certificate(&stack(), pending(&arn, wanted));
    arn
}

#[tokio::test(start_paused = true)]
async fn in_place_of_a_deleted_certificate_another_one_is_requested_also_after_a_restart() {
    let world = world();
    let wanted = wanted(&["shop.example.com"]);
    let inventory = Inventory::new(world.aws.reader().clone(), "demo", vpc());
    let mut earlier = BTreeSet::new();
    for _ in 0..3 {
        let arn = request(&world, &inventory, &wanted).await;
        world.aws.delete_certificate(&arn).await.unwrap();
        inventory.record_certificate_deleted(&stack(), &arn);
        inventory.record_certificate_gone(&stack(), &arn);
        inventory.release_certificates(&stack());
        assert!(earlier.insert(arn.clone()), "{arn} was deleted before");
    }
    // A new process does not know of them. ACM answers with each one, which is seen not to exist.
    let inventory = Inventory::new(world.aws.reader().clone(), "demo", vpc());
    let mut asked = Vec::new();
    let found = loop {
        let arn = request(&world, &inventory, &wanted).await;
        if !earlier.contains(&arn) {
            break arn;
        }
        asked.push(arn);
        tokio::time::sleep(Duration::from_secs(5)).await;
    };
    assert_eq!(asked.len(), 9, "{asked:?}");
    assert_eq!(known(&world).await.iter().map(|known| &known.arn).collect::<Vec<_>>(), [&found]);
}
