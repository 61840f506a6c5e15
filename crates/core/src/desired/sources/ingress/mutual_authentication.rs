//! Certificates of clients on HTTPS listeners (reference: ingress §4.5).

use std::collections::{BTreeMap, BTreeSet};

use super::{Builder, Failed, Member};
use crate::{
    api::annotations::{TrustStore, registry::ingress as keys},
    diagnostics::Code,
    facts::FactQuery,
    model::{MutualAuthentication, ObjectReference, TrustStoreArn, Value},
};

const KEY: &str = keys::MUTUAL_AUTHENTICATION.as_str();

impl<'a> Builder<'a> {
    /// Returns the treatment of clients' certificates, by port. A value for a port that is not an HTTPS listener of the member has
    /// no effect.
    pub(super) fn mutual_authentication(
        &mut self,
        member: Member<'a>,
        https: &BTreeSet<u16>,
    ) -> Result<BTreeMap<u16, MutualAuthentication<Value<TrustStoreArn>>>, Failed> {
        let Member { ingress, annotations, .. } = member;
        let written = self.value(ingress, None, annotations.mutual_authentication())?.unwrap_or_default();
        let ours = written.iter().filter(|(port, _)| https.contains(port));
        let found: Vec<_> = ours
            .map(|(port, entry)| {
                let entry = entry.try_map(|store| match store {
                    TrustStore::Arn(arn) => Ok(Value::Known(TrustStoreArn::new(arn))),
                    TrustStore::Name(name) => {
                        let (fact, object) = (self.facts.trust_store(name), ObjectReference::ingress(&ingress.name));
                        self.sink.resolve(fact, FactQuery::TrustStore(name.clone()), object, Code::InvalidValue, KEY)
                    }
                });
                Ok((*port, entry?))
            })
            .collect();
        found.into_iter().collect()
    }
}
