//! The edits of users and of the rest of the cluster.

use serde_json::Value;

use super::{
    World, in_role,
    objects::{
        NAMESPACE, backend_service, balanced_service, break_object, edit_ingress, edit_service, forwards_to, ingress,
        mend_object, own_binding, regroup, without_other_clusters,
    },
};

impl World {
    /// Returns true if Ingresses share load balancers: in every fifth world.
    fn is_grouped(&self) -> bool {
        self.seed % 5 == 4
    }

    fn create(&mut self, object: Value) -> bool {
        let name = format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        let created = self.cluster.create(object).is_ok();
        self.tell(format!("{name} is {}", if created { "created" } else { "still there, and not created" }));
        created
    }

    fn create_ingress(&mut self, at: usize) {
        let mut object = ingress(&self.ingresses[at], &mut self.random, self.shape.backends);
        // A target that is registered by hand would be another cluster's.
        if self.shape.tampered {
            without_other_clusters(&mut object);
        }
        if self.is_grouped() {
            regroup(&mut object, &mut self.random);
        }
        self.create(object);
    }

    fn create_service(&mut self, at: usize) {
        // Without security groups the rules on nodes name each subnet: so many do not fit in tight limits.
        let may_be_quic = Self::limits(self.seed).is_none();
        let name = self.services[at].clone();
        let object = balanced_service(&name, at, &mut self.random, self.shape.backends, may_be_quic);
        self.create(object);
        self.pods[self.shape.backends + at].write(&self.cluster);
    }

    fn create_backend(&mut self, at: usize) {
        self.create(backend_service(at));
        self.pods[at].write(&self.cluster);
    }

    fn create_binding(&mut self, at: usize) {
        let (shared, backends) = (self.shares_groups(), self.shape.backends);
        let (name, group, kind) = (&self.bindings[at], &self.foreign[at], (shared, in_role(self.seed)));
        let object = own_binding(name, group, kind, backends, &mut self.random);
        self.create(object);
    }

    pub(crate) fn create_everything(&mut self) {
        for pods in 0..self.pods.len() {
            for _ in 0..1 + self.random.below(2) {
                self.pods[pods].add(&self.cluster, &self.aws);
            }
        }
        (0..self.shape.backends).for_each(|at| self.create_backend(at));
        (0..self.ingresses.len()).for_each(|at| self.create_ingress(at));
        (0..self.services.len()).for_each(|at| self.create_service(at));
        (0..self.bindings.len()).for_each(|at| self.create_binding(at));
    }

    pub(crate) fn delete(&mut self, plural: &'static str, name: &str) {
        self.tell(format!("{plural} {name} is deleted"));
        self.broken.remove(&(plural, name.to_owned()));
        self.cluster.delete(plural, NAMESPACE, name);
    }

    fn change(&mut self, plural: &'static str, name: &str, what: &str, change: impl FnOnce(&mut Value)) {
        let before = self.cluster.version();
        self.cluster.edit(plural, NAMESPACE, name, change);
        let changed = self.cluster.version() > before;
        self.tell(format!("{plural} {name}: {what}{}", if changed { "" } else { " (which changes nothing)" }));
    }

    /// Makes an edit.
    pub(crate) fn edit(&mut self) {
        let ingresses = self.ingresses.len();
        let services = self.services.len();
        match self.random.below(12) {
            0..=3 if ingresses > 0 => {
                let name = self.ingresses[self.random.below(ingresses)].clone();
                let (mut random, backends, mut what) = (self.random.fork(7), self.shape.backends, String::new());
                self.random.number();
                if self.broken.contains(&("ingresses", name.clone())) {
                    return;
                }
                let mut edited = None;
                if let Some(object) = self.cluster.get("ingresses", NAMESPACE, &name) {
                    let mut object = Value::clone(&object);
                    what = edit_ingress(&mut object, &mut random, backends);
                    if self.is_grouped() {
                        regroup(&mut object, &mut random);
                    }
                    edited = Some(object);
                }
                if let Some(object) = edited {
                    self.change("ingresses", &name, &what, |old| *old = object);
                }
            }
            4 if services > 0 => {
                let at = self.random.below(services);
                let (name, mut random, backends) =
                    (self.services[at].clone(), self.random.fork(8), self.shape.backends);
                self.random.number();
                if let Some(object) = self.cluster.get("services", NAMESPACE, &name) {
                    let mut object = Value::clone(&object);
                    let what = edit_service(&mut object, at, &mut random, backends);
                    self.change("services", &name, &what, |old| *old = object);
                    self.pods[self.shape.backends + at].write(&self.cluster);
                }
            }
            5 => self.delete_or_create(),
            6 | 7 => self.break_or_mend(),
            8 => {
                let at = self.random.below(self.shape.backends);
                let name = super::objects::backend_name(at);
                if self.cluster.get("services", NAMESPACE, &name).is_some() {
                    self.delete("services", &name);
                    self.pods[at].write(&self.cluster);
                } else {
                    self.create_backend(at);
                }
            }
            9 if !self.bindings.is_empty() => {
                let name = self.bindings[0].clone();
                if self.cluster.get("targetgroupbindings", NAMESPACE, &name).is_some() {
                    self.delete("targetgroupbindings", &name);
                } else {
                    self.create_binding(0);
                }
            }
            _ => self.move_pods(),
        }
    }

    fn delete_or_create(&mut self) {
        let at = self.random.below(self.ingresses.len() + self.services.len());
        let (plural, name) = match at.checked_sub(self.ingresses.len()) {
            None => ("ingresses", self.ingresses[at].clone()),
            Some(at) => ("services", self.services[at].clone()),
        };
        if self.cluster.get(plural, NAMESPACE, &name).is_some() {
            self.delete(plural, &name);
            if plural == "services" {
                self.pods[self.shape.backends + at - self.ingresses.len()].write(&self.cluster);
            }
        } else if plural == "services" {
            self.create_service(at - self.ingresses.len());
        } else {
            self.create_ingress(at);
        }
    }

    fn break_or_mend(&mut self) {
        let all: Vec<(&'static str, String)> = self
            .ingresses
            .iter()
            .map(|name| ("ingresses", name.clone()))
            .chain(self.services.iter().map(|name| ("services", name.clone())))
            .collect();
        let Some((plural, name)) = self.random.pick(&all).cloned() else { return };
        if self.broken.remove(&(plural, name.clone())) {
            self.change(plural, &name, "mended", mend_object);
        } else if self.cluster.get(plural, NAMESPACE, &name).is_some() {
            self.change(plural, &name, "broken", break_object);
            self.broken.insert((plural, name));
        }
    }

    fn move_pods(&mut self) {
        let at = self.random.below(self.pods.len());
        let what = self.random.below(4);
        let pods = &mut self.pods[at];
        let count = pods.pods.len();
        match what {
            0 if count > 0 => {
                let pod = self.random.below(count);
                pods.remove(&self.cluster, pod);
            }
            1 if count > 0 => {
                let pod = self.random.below(count);
                pods.pods[pod].1 = !pods.pods[pod].1;
            }
            _ if count < 6 => pods.add(&self.cluster, &self.aws),
            _ => {}
        }
        pods.write(&self.cluster);
        let reported = format!("the pods of {} are {:?}", pods.service, pods.pods);
        self.tell(reported);
    }

    pub(crate) fn mend_everything(&mut self) {
        for (plural, name) in std::mem::take(&mut self.broken) {
            self.change(plural, &name, "mended", mend_object);
        }
    }

    /// A Service that forwards to one that does not exist keeps what it has: its backends must be there.
    pub(crate) fn create_forwarded_backends(&mut self) {
        for at in 0..self.shape.backends {
            let backend = super::objects::backend_name(at);
            let forwards = |name: &String| {
                let service = self.cluster.get("services", NAMESPACE, name);
                service.is_some_and(|service| forwards_to(&service, &backend))
            };
            if self.cluster.get("services", NAMESPACE, &backend).is_none() && self.services.iter().any(forwards) {
                self.create_backend(at);
            }
        }
    }

    /// A binding may take its target group over whole, so one that has been there has had an effect: it must be there.
    pub(crate) fn create_bindings(&mut self) {
        for at in 0..self.bindings.len() {
            if self.cluster.get("targetgroupbindings", NAMESPACE, &self.bindings[at]).is_none() {
                self.create_binding(at);
            }
        }
    }

    pub(crate) fn delete_everything(&mut self) {
        for name in self.ingresses.clone() {
            self.delete("ingresses", &name);
        }
        for name in self.services.clone() {
            self.delete("services", &name);
        }
        for name in self.bindings.clone() {
            self.delete("targetgroupbindings", &name);
        }
    }
}
