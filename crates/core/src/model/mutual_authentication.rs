//! Certificates of clients, on HTTPS listeners.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The treatment of clients' certificates. `T` names a trust store: in the desired state a value that may be known only after apply,
/// in the observed state an ARN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MutualAuthentication<T> {
    /// Clients need no certificate.
    Off,
    /// The certificates are passed on to the targets, not verified.
    Passthrough,
    /// The certificates are verified against the trust store.
    Verify {
        /// The authorities that count.
        trust_store: T,
        /// True if an expired certificate is accepted.
        ignore_client_certificate_expiry: bool,
        /// True if clients receive the names of the accepted authorities.
        advertise_trust_store_ca_names: bool,
    },
}

impl<T> MutualAuthentication<T> {
    /// `Mode` in ELB v2.
    #[must_use]
    pub fn mode(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Passthrough => "passthrough",
            Self::Verify { .. } => "verify",
        }
    }

    /// Returns the same with its trust store named in another way.
    ///
    /// # Errors
    /// Returns the error of `name` for a trust store that it does not know.
    pub fn try_map<U, E>(&self, name: impl FnOnce(&T) -> Result<U, E>) -> Result<MutualAuthentication<U>, E> {
        Ok(match self {
            Self::Off => MutualAuthentication::Off,
            Self::Passthrough => MutualAuthentication::Passthrough,
            Self::Verify { trust_store, ignore_client_certificate_expiry, advertise_trust_store_ca_names } => {
                MutualAuthentication::Verify {
                    trust_store: name(trust_store)?,
                    ignore_client_certificate_expiry: *ignore_client_certificate_expiry,
                    advertise_trust_store_ca_names: *advertise_trust_store_ca_names,
                }
            }
        })
    }
}

impl<T: fmt::Display> fmt::Display for MutualAuthentication<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mode())?;
        let Self::Verify { trust_store, ignore_client_certificate_expiry, advertise_trust_store_ca_names } = self
        else {
            return Ok(());
        };
        write!(f, " by trust store {trust_store}")?;
        if *ignore_client_certificate_expiry {
            f.write_str(", expired ones too")?;
        }
        if *advertise_trust_store_ca_names {
            f.write_str(", with the names of its authorities advertised")?;
        }
        Ok(())
    }
}
