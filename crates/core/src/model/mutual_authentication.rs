//! Certificates of clients, on HTTPS listeners.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether and how clients show certificates. `T` names a trust store: perhaps known only after apply in what shall be, an ARN in
/// what is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MutualAuthentication<T> {
    /// They need none.
    Off,
    /// What they show is passed on to the targets and not looked at.
    Passthrough,
    /// They show one that the trust store vouches for.
    Verify {
        /// The authorities that count.
        trust_store: T,
        /// Whether one that has expired will do.
        ignore_client_certificate_expiry: bool,
        /// Whether clients are told whose certificates will do.
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

    /// The same with its trust store named in another way.
    ///
    /// # Errors
    /// What `name` answers for a trust store that it does not know.
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
