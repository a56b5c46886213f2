//! Who may reach a service at all, before anyone asks who they are.
//!
//! Where a request comes from was decided by the listener it came in by. Refused callers see the page of a host that is not
//! there, as at Google.

use model::service::Ingress;

use crate::{Origin, refusal::Refusal};

/// # Errors
/// `Ingress` (404) when `ingress` keeps `origin` out of a service of `project`.
///
/// No load balancer exists here, so `InternalAndLoadBalancer` admits what `Internal` does.
pub(crate) fn check(ingress: Ingress, project: &str, origin: &Origin) -> Result<(), Refusal> {
    if admits(ingress, project, origin) { Ok(()) } else { Err(Refusal::Ingress) }
}

/// Whether `ingress` lets `origin` reach a service of `project`.
pub fn admits(ingress: Ingress, project: &str, origin: &Origin) -> bool {
    let inside = matches!(origin, Origin::Inside { project: from } if from == project);
    match ingress {
        Ingress::All => true,
        Ingress::Internal | Ingress::InternalAndLoadBalancer => inside,
        Ingress::None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_is_for_the_same_project() {
        let outside = Origin::Outside { remote: "192.0.2.1:1000".parse().unwrap(), tls: true };
        let own = Origin::Inside { project: "p".to_owned() };
        let other = Origin::Inside { project: "q".to_owned() };
        for (ingress, from_outside, from_own, from_other) in [
            (Ingress::All, true, true, true),
            (Ingress::Internal, false, true, false),
            (Ingress::InternalAndLoadBalancer, false, true, false),
            (Ingress::None, false, false, false),
        ] {
            assert_eq!(check(ingress, "p", &outside).is_ok(), from_outside);
            assert_eq!(check(ingress, "p", &own).is_ok(), from_own);
            assert_eq!(check(ingress, "p", &other).is_ok(), from_other);
        }
    }
}
