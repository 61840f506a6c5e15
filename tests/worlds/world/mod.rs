//! A world: a cluster, an AWS and a process of the controller between them, and its events.

mod checks;
pub(crate) mod compare;
mod edits;
mod hostile;
pub(crate) mod objects;

use std::{collections::BTreeSet, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use crate::process::{Election, Process};
use albatross_simulation::{
    aws::{self, Call, SimulatedAws},
    cluster::{self, Request, SimulatedCluster},
    random::Random,
};
use objects::Pods;

/// The size of a world, and its events.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) ingresses: usize,
    pub(crate) services: usize,
    pub(crate) bindings: usize,
    pub(crate) backends: usize,
    pub(crate) edits: usize,
    pub(crate) cluster_faults: bool,
    pub(crate) aws_faults: bool,
    /// The probability that the process ends after an edit, in one way or another.
    pub(crate) ends: f64,
    /// True if everything is deleted in the end.
    pub(crate) deleted: bool,
    /// True if a policy engine changes each TargetGroupBinding that is written.
    pub(crate) policy: bool,
    /// True if people change AWS by hand.
    pub(crate) tampered: bool,
}

impl Shape {
    /// Most worlds are tiny, so that many can be tried.
    pub(crate) fn of(random: &mut Random) -> Self {
        let (objects, edits) = match random.below(100) {
            0..=84 => (1 + random.below(2), 2 + random.below(4)),
            85..=97 => (2 + random.below(4), 3 + random.below(6)),
            98 => (6 + random.below(6), 10),
            _ => (15 + random.below(16), 15),
        };
        let services = (0..objects).filter(|_| random.chance(0.3)).count();
        Self {
            ingresses: objects - services,
            services,
            bindings: usize::from(random.chance(0.2)),
            backends: 1 + random.below(objects.min(4)),
            edits,
            cluster_faults: random.chance(0.6),
            aws_faults: random.chance(0.6),
            ends: if random.chance(0.5) { 0.3 } else { 0.0 },
            deleted: random.chance(0.25),
            policy: random.chance(0.25),
            tampered: random.fork(9).chance(0.1),
        }
    }
}

/// The world.
pub(crate) struct World {
    pub(crate) seed: u64,
    random: Random,
    /// The random numbers for starts and ends of the process: separate, so that users act the same in any case.
    fortune: Random,
    /// The random numbers for the harmful acts of tenants and people.
    hostile: Random,
    shape: Shape,
    pub(crate) cluster: SimulatedCluster,
    pub(crate) aws: SimulatedAws,
    process: Option<Process>,
    processes: usize,
    /// A process that led once, lost its lease, and has watched the cluster since.
    standby: Option<Process>,
    /// The number of times that the lease was taken.
    terms: i32,
    /// Fires when the process has come to the call at which it crashes.
    crash: Option<oneshot::Receiver<()>>,
    ingresses: Vec<String>,
    services: Vec<String>,
    bindings: Vec<String>,
    /// The pods of the backends, then of the Services with load balancers.
    pods: Vec<Pods>,
    /// Kind and name of objects that nothing can be made of.
    broken: BTreeSet<(&'static str, String)>,
    foreign: Vec<String>,
    started: Instant,
    reported: Vec<(Instant, String)>,
    calls: Vec<Call>,
    requests: Vec<Request>,
    /// From when to when a process lived that had lost its lease.
    deposed: Vec<(Instant, Instant)>,
    /// The times at which load balancers were protected by hand, and the number of terms until then.
    protected: Vec<(Instant, String, i32)>,
    /// True while a protected load balancer is still to be deleted.
    to_be_deleted: bool,
}

/// The most time that a world needs to come to rest, in its own time: a connection that goes silent is noticed after 320 s, a key
/// that fails pauses for two minutes.
const DEADLINE: Duration = Duration::from_secs(1800);
/// The period of the audit in a world where everything is as desired and no call is expected.
const NEVER: Duration = Duration::from_secs(100 * 86_400);

impl World {
    /// Returns a world in which no object requests a load balancer yet.
    pub(crate) fn new(seed: u64, mut shape: Shape) -> Self {
        let cluster = SimulatedCluster::new(seed);
        let aws = SimulatedAws::new(seed);
        objects::foundation(&cluster);
        if shape.policy {
            cluster.enforce_policy();
        }
        // A single Ingress is not a group.
        shape.ingresses = shape.ingresses.max(if seed % 5 == 4 { 3 } else { 0 });
        let mut foreign = aws.add_foreign(1, shape.bindings);
        if in_role(seed) {
            foreign = aws.add_abroad(objects::ROLE, Some(objects::EXTERNAL_ID), shape.bindings);
        }
        let mut pods = Vec::new();
        let backends = (0..shape.backends).map(objects::backend_name);
        for service in backends.chain((0..shape.services).map(service_name)) {
            pods.push(Pods::new(&service, pods.len()));
        }
        let (random, fortune, hostile) =
            (Random::new(seed).fork(1), Random::new(seed).fork(3), Random::new(seed).fork(5));
        if let Some(limits) = Self::limits(seed) {
            aws.set_limits(limits);
        }
        Self {
            seed,
            random,
            fortune,
            hostile,
            ingresses: (0..shape.ingresses).map(|number| format!("web-{number}")).collect(),
            services: (0..shape.services).map(service_name).collect(),
            bindings: (0..shape.bindings).map(|number| format!("own-{number}")).collect(),
            shape,
            cluster,
            aws,
            process: None,
            processes: 0,
            standby: None,
            terms: 0,
            crash: None,
            pods,
            broken: BTreeSet::new(),
            foreign,
            started: Instant::now(),
            reported: Vec::new(),
            calls: Vec::new(),
            requests: Vec::new(),
            deposed: Vec::new(),
            protected: Vec::new(),
            to_be_deleted: false,
        }
    }

    /// Returns true if the bindings that users write leave their target groups' other targets alone.
    pub(crate) fn shares_groups(&self) -> bool {
        Random::new(self.seed).fork(13).chance(0.5)
    }

    /// Returns true if the controller writes the plan of each group on its first Ingress.
    fn writes_plans(&self) -> bool {
        Random::new(self.seed).fork(14).chance(0.5)
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.reported.push((Instant::now(), what.into()));
    }

    pub(crate) fn start(&mut self) {
        if self.process.is_none() {
            self.tell("the controller starts");
            self.processes += 1;
            self.terms += 1;
            let audit = if self.shape.tampered { hostile::AUDIT } else { NEVER };
            let election = Election::Given(self.terms);
            self.process =
                Some(Process::start(&self.cluster, &self.aws, self.processes, election, audit, self.writes_plans()));
        }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            self.tell("the controller is killed");
            process.kill();
        }
    }

    /// Lets time pass. A process that has come to the call at which it crashes is killed, and another started a little later.
    async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        if let Some(crash) = &mut self.crash {
            if tokio::time::timeout_at(until, crash).await.is_err() {
                return;
            }
            self.crash = None;
            self.tell("the controller has come to the call at which it crashes");
            self.kill();
            self.start_soon().await;
        }
        tokio::time::sleep_until(until).await;
    }

    /// Starts the next process, or has the standby lead. It does not lead before what the last one has sent has arrived: a lease takes longer.
    async fn start_soon(&mut self) {
        let pause = if self.fortune.chance(0.3) { Duration::ZERO } else { self.fortune.up_to(Duration::from_secs(20)) };
        tokio::time::sleep(Duration::from_secs(1) + pause).await;
        match self.standby.take() {
            Some(standby) if self.fortune.chance(0.7) => self.lead_again(standby),
            standby => {
                self.standby = standby;
                self.start();
            }
        }
    }

    /// Lets the process crash at one of its next writes to AWS.
    fn arm(&mut self, write: u64, takes_effect: bool) {
        self.tell(format!("the controller shall crash at write {write} from here, which takes effect: {takes_effect}"));
        self.crash = Some(self.aws.crash_at(write, takes_effect));
    }

    async fn end_process(&mut self) {
        match self.fortune.below(4) {
            0 => self.kill(),
            1 => {
                if let Some(process) = self.process.take() {
                    self.depose(process).await;
                    return;
                }
            }
            2 => {
                if let Some(process) = self.process.take() {
                    self.tell("the controller is asked to stop");
                    process.stop().await;
                }
            }
            _ => {
                if self.crash.is_none() {
                    let (write, takes_effect) = (self.fortune.below(12) as u64, self.fortune.chance(0.5));
                    self.arm(write, takes_effect);
                }
                return;
            }
        }
        self.start_soon().await;
    }

    /// Takes the lease from a process, which then ends, or leads again, or stands by until another one ends.
    async fn depose(&mut self, mut process: Process) {
        self.tell("the controller loses its lease");
        let lost = Instant::now();
        process.lose_lease().await;
        self.deposed.push((lost, Instant::now()));
        if self.fortune.chance(0.3) {
            process.kill();
            return self.start_soon().await;
        }
        if self.fortune.chance(0.5) {
            return self.lead_again(process);
        }
        self.tell("another leads in its place");
        if let Some(before) = self.standby.replace(process) {
            before.kill();
        }
        self.start();
    }

    fn lead_again(&mut self, process: Process) {
        self.tell("the controller that lost its lease leads again");
        self.terms += 1;
        process.lead_again(self.terms);
        self.process = Some(process);
    }

    fn faults(&mut self, on: bool) {
        self.tell(if on { "faults begin" } else { "faults end" });
        let in_cluster = cluster::Faults {
            fails_before: 0.04,
            fails_after: 0.04,
            lost_before: 0.01,
            lost_after: 0.02,
            contended: 0.05,
            torn_lists: 0.1,
            breaks: 0.03,
            expires: 0.03,
            duplicates: 0.05,
            latest: Duration::from_secs(3),
            slowest: Duration::from_millis(300),
        };
        let in_aws = aws::Faults {
            throttle: 0.1,
            fails_before: 0.03,
            fails_after: 0.03,
            lost_before: 0.01,
            lost_after: 0.02,
            in_use: 0.3,
            fresh_for: Duration::from_secs(2),
            unlisted_for: Duration::ZERO,
        };
        self.cluster.set_faults(if on && self.shape.cluster_faults { in_cluster } else { cluster::Faults::default() });
        self.aws.set_faults(if on && self.shape.aws_faults { in_aws } else { aws::Faults::default() });
    }

    /// Waits until nothing happens any more.
    pub(crate) async fn settle(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + DEADLINE;
        let mut quiet = 0;
        let mut seen = (0, 0);
        loop {
            self.pass(Duration::from_secs(1)).await;
            self.calls.extend(self.aws.calls());
            let now = (self.cluster.version(), self.calls.len());
            let idle = self.process.as_ref().is_some_and(|p| p.is_idle() && self.cluster.has_heard(p.life()));
            quiet = if idle && seen == now { quiet + 1 } else { 0 };
            seen = now;
            if quiet >= 3 {
                self.tell("all is quiet");
                return Ok(());
            }
            if Instant::now() > deadline {
                let state = self.process.as_ref().map(|process| process.controller().state().to_string());
                return Err(format!("it does not come to rest: {}", state.unwrap_or_default()));
            }
        }
    }

    fn keep_requests(&mut self) {
        self.requests.extend(self.cluster.requests());
        self.calls.extend(self.aws.calls());
    }

    /// The whole history, for people.
    pub(crate) fn history(&mut self) -> String {
        self.keep_requests();
        let reported = self.reported.iter().map(|(at, what)| (*at, format!("** {what}")));
        let calls = self.calls.iter().filter(|call| call.is_write).map(|call| (call.at, format!("   AWS  {call}")));
        let requests = self.requests.iter().filter(|request| request.is_write() && !request.path.ends_with("/events"));
        let requests = requests
            .map(|r| (r.at, format!("   K8s  {} {} {} -> {}", r.method, r.path, shortened(&r.body), r.outcome)));
        let mut lines: Vec<(Instant, String)> = reported.chain(calls).chain(requests).collect();
        lines.sort_by_key(|(at, _)| *at);
        let line =
            |(at, what): &(Instant, String)| format!("{:9.3} {what}", at.duration_since(self.started).as_secs_f64());
        lines.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Everything is created, then changed, then deleted, each time until all is quiet; the controller crashes once on the
    /// way. Answers what AWS had after each part.
    pub(crate) async fn script(&mut self, crash: Option<(u64, bool)>) -> Result<Vec<String>, String> {
        if let Some((write, takes_effect)) = crash {
            self.arm(write, takes_effect);
        }
        let mut states = Vec::new();
        self.create_everything();
        self.start();
        self.settle().await?;
        states.push(compare::text_of(&self.aws.state()));
        for _ in 0..self.shape.edits {
            self.edit();
        }
        self.mend_everything();
        self.settle().await?;
        states.push(compare::text_of(&self.aws.state()));
        self.delete_everything();
        self.settle().await?;
        states.push(compare::text_of(&self.aws.state()));
        Ok(states)
    }

    /// Returns the number of writes that AWS has seen.
    pub(crate) fn writes(&self) -> usize {
        self.calls.iter().filter(|call| call.is_write).count()
    }

    /// Starts a process that takes part in the election.
    fn elect(&mut self, fenced: bool) -> Process {
        self.processes += 1;
        self.tell(format!("process {} starts", self.processes));
        Process::start(&self.cluster, &self.aws, self.processes, Election::Real { fenced }, NEVER, self.writes_plans())
    }

    /// Makes the process that leads the one that is looked at.
    fn look_at_the_leader(&mut self) {
        let leads = |process: &Option<Process>| process.as_ref().is_some_and(|process| process.term().is_some());
        if !leads(&self.process) && leads(&self.standby) {
            std::mem::swap(&mut self.process, &mut self.standby);
        }
    }

    /// Two processes take turns at the lease, and each may be frozen, killed or stopped; then one leads until all is quiet.
    pub(crate) async fn contend(&mut self, fenced: bool) -> Result<(), String> {
        self.cluster.judge_leases();
        self.faults(true);
        self.create_everything();
        self.process = Some(self.elect(fenced));
        self.standby = Some(self.elect(fenced));
        for _ in 0..self.shape.edits.max(4) {
            let pause = self.random.up_to(Duration::from_secs(20));
            self.pass(pause).await;
            self.edit();
            let pause = Duration::from_millis(50) + self.fortune.up_to(Duration::from_millis(500));
            self.pass(pause).await;
            self.look_at_the_leader();
            match self.fortune.below(4) {
                0 | 1 => {
                    let life = self.process.as_ref().map(|process| process.life().clone()).expect("a process");
                    self.tell(format!("{} is frozen", life.identity()));
                    life.freeze(true);
                    let pause = self.fortune.up_to(Duration::from_secs(60));
                    self.pass(pause).await;
                    self.edit();
                    self.pass(Duration::from_millis(50)).await;
                    self.tell(format!("{} goes on", life.identity()));
                    life.freeze(false);
                }
                2 => {
                    self.kill();
                    self.process = Some(self.elect(fenced));
                }
                _ => {
                    let process = self.process.take().expect("a process");
                    self.tell("the leader is asked to stop");
                    process.stop().await;
                    self.process = Some(self.elect(fenced));
                }
            }
        }
        self.pass(Duration::from_secs(1)).await;
        self.faults(false);
        self.mend_everything();
        // The time until a process leads.
        self.pass(Duration::from_secs(60)).await;
        self.look_at_the_leader();
        self.settle().await?;
        self.create_forwarded_backends();
        self.create_bindings();
        self.settle().await?;
        self.look_at_the_leader();
        if let Some(standby) = self.standby.take() {
            standby.kill();
        }
        let written = self.cluster.written_without_lease();
        if !written.is_empty() {
            return Err(format!("it is written without the lease:\n{}", written.join("\n")));
        }
        self.terms = self.process.as_ref().and_then(Process::term).ok_or("nobody leads in the end")?;
        Ok(())
    }

    /// Everything is created, and then things happen, with and without faults.
    pub(crate) async fn live(&mut self) -> Result<(), String> {
        self.faults(true);
        self.create_everything();
        self.start();
        if self.random.chance(0.3) {
            let (write, takes_effect) = (self.random.below(15) as u64, self.random.chance(0.5));
            self.arm(write, takes_effect);
        }
        for _ in 0..self.shape.edits {
            // Sometimes at once, sometimes in the middle of what the last one has begun, sometimes long after.
            let pause = match self.random.below(4) {
                0 => Duration::from_millis(1),
                1 => Duration::from_secs(60),
                _ => self.random.up_to(Duration::from_secs(5)),
            };
            self.pass(pause).await;
            self.edit();
            self.mischief();
            if self.shape.ends > 0.0 && self.random.chance(self.shape.ends) {
                self.end_process().await;
            }
            if self.shape.cluster_faults && self.random.chance(0.1) {
                self.tell("all watches break, and begin with a list");
                self.cluster.compact();
            }
        }
        self.pass(Duration::from_secs(1)).await;
        self.faults(false);
        self.end_mischief();
        self.crash = None;
        self.aws.disarm();
        self.start();
        self.mend_everything();
        self.end_protection().await;
        self.settle().await?;
        self.create_forwarded_backends();
        self.create_bindings();
        self.settle().await?;
        self.tampered().await
    }
}

/// Returns true if the target groups of bindings that users write are in another account.
pub(crate) fn in_role(seed: u64) -> bool {
    Random::new(seed).fork(17).chance(0.3)
}

pub(crate) fn service_name(number: usize) -> String {
    format!("front-{number}")
}

fn shortened(body: &serde_json::Value) -> String {
    let text = body.to_string();
    if text.chars().count() > 200 { text.chars().take(200).chain(['…']).collect() } else { text }
}
