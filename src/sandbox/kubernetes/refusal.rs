//! What the cluster's refusals mean: from an error of its API to one sentence that says what to do. Pure.

use kube::Error;

use super::told::line;
use crate::sandbox::SandboxError;

/// What was asked, and with what, for the sentence.
pub(super) struct Asked<'a> {
    /// What was to be done, as the end of a sentence: "create pods".
    pub(super) act: &'a str,
    /// The runtime class that the sandbox was to have.
    pub(super) runtime: Option<&'a str>,
}

/// An error of the API as one of ours.
pub(super) fn told(error: &Error, asked: &Asked<'_>) -> SandboxError {
    let Error::Api(status) = error else {
        return unanswered(line(&error.to_string()));
    };
    let detail = line(&status.message);
    match status.code {
        403 if detail.contains("exceeded quota") || detail.contains("failed quota") => SandboxError::Quota { detail },
        403 | 422 if of_runtime(&detail) => SandboxError::RuntimeMissing {
            runtime: asked.runtime.unwrap_or_default().to_owned(),
            known: "`kubectl get runtimeclasses`".to_owned(),
        },
        401 | 403 | 404 => SandboxError::Forbidden {
            act: asked.act.to_owned(),
            detail,
        },
        429 | 500..=599 => unanswered(format!("{} {detail}", status.code)),
        _ => SandboxError::Create { detail },
    }
}

fn of_runtime(detail: &str) -> bool {
    detail.contains("RuntimeClass") && detail.contains("not found")
}

pub(super) fn unanswered(detail: String) -> SandboxError {
    SandboxError::ClusterAway { detail }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn of(code: u16, message: &str) -> SandboxError {
        let status = Status {
            code,
            message: message.to_owned(),
            ..Status::default()
        };
        let asked = Asked {
            act: "create pods",
            runtime: Some("gvisor"),
        };
        told(&Error::Api(Box::new(status)), &asked)
    }

    #[test]
    fn each_refusal_says_what_to_do_and_whether_waiting_helps() {
        let full = of(
            403,
            "pods \"x\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2",
        );
        assert!(matches!(full, SandboxError::Quota { .. }) && full.is_transient());
        let runtime = of(
            403,
            "pods \"x\" is forbidden: pod rejected: RuntimeClass \"gvisor\" not found",
        );
        assert!(matches!(&runtime, SandboxError::RuntimeMissing { runtime, .. } if runtime == "gvisor"));
        assert!(!runtime.is_transient());
        let forbidden = of(403, "pods is forbidden: User \"x\" cannot create resource \"pods\"");
        assert!(forbidden.to_string().contains("create pods") && !forbidden.is_transient());
        for code in [429, 500, 503, 504] {
            assert!(matches!(of(code, "busy"), SandboxError::ClusterAway { .. }), "{code}");
        }
        assert!(matches!(of(409, "already exists"), SandboxError::Create { .. }));
    }
}
