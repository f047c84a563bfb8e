//! A stand-in for a cluster (`tests/support/kubernetes`): its API, which checks every request against the published schemas, and its pods, which
//! are real containers. Ends with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{inside, until};

pub(crate) const NAMESPACE: &str = "sandboxes";
/// Where pods find the workers, and where those are on loopback, without the last number. The former exist in pods only.
const WORKERS: (&str, &str) = ("10.96.7.", "127.0.0.");
/// An image with `inside`, as the worker's own is.
const TOOLS: &str = "cofferdam/sandbox-tools:test";

/// Whether the tests are run on it instead of the engine.
pub(crate) fn is_backend() -> bool {
    std::env::var("COFFERDAM_TEST_BACKEND").is_ok_and(|name| name == "kubernetes")
}

pub(crate) struct StandIn {
    process: Child,
    url: String,
    kubeconfig: PathBuf,
    pub(crate) port: u16,
    workers: AtomicU8,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // Told, so that it removes its containers.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

impl StandIn {
    /// Starts it, with a network policy that lets pods out to the worker's port alone.
    pub(crate) fn start(directory: &Path, seconds: u32) -> Self {
        tools_image();
        let python =
            std::env::var_os("COFFERDAM_TEST_PYTHON").expect("COFFERDAM_TEST_PYTHON is missing: see tests/run.sh");
        let (ready, kubeconfig) = (directory.join("cluster.json"), directory.join("kubeconfig"));
        let process = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/kubernetes/standin.py"))
            .arg("--ready-file")
            .arg(&ready)
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .args(["--namespace", NAMESPACE, "--max-lifetime", &seconds.to_string()])
            .args(["--parent-pid", &std::process::id().to_string()])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut one = Self {
            process,
            url: String::new(),
            kubeconfig,
            // Not 1: on that address everybody else's ports are, and this one is nobody's until a worker listens.
            workers: AtomicU8::new(2),
            port: std::net::TcpListener::bind("127.0.0.1:0")
                .and_then(|free| free.local_addr())
                .unwrap()
                .port(),
        };
        let text = until(Duration::from_secs(30), "the cluster's stand-in", || {
            std::fs::read_to_string(&ready).ok()
        });
        let ready: Value = serde_json::from_str(&text).unwrap();
        one.url = ready["url"].as_str().unwrap().to_owned();
        one.control("policies", &json!([one.policy()]));
        one
    }

    /// What the README shows.
    pub(crate) fn policy(&self) -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "sandboxes"},
            "spec": {
                "podSelector": {},
                "policyTypes": ["Ingress", "Egress"],
                "egress": [{
                    "to": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "cofferdam"}}}],
                    "ports": [{"protocol": "TCP", "port": self.port}],
                }],
            },
        })
    }

    /// The keys of a worker that uses it, as variables.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let key = |name: &str, value: String| (format!("COFFERDAM__SANDBOX__{name}"), value);
        vec![
            key("BACKEND", "kubernetes".to_owned()),
            key("KUBERNETES__NAMESPACE", NAMESPACE.to_owned()),
            key("KUBERNETES__KUBECONFIG", self.kubeconfig.display().to_string()),
            key("KUBERNETES__TOOLS_IMAGE", TOOLS.to_owned()),
        ]
        .into_iter()
        .chain(self.another())
        .collect()
    }

    /// The addresses of one more worker.
    pub(crate) fn another(&self) -> [(String, String); 2] {
        let number = self.workers.fetch_add(1, Ordering::Relaxed);
        let key = |name: &str, value: String| (format!("COFFERDAM__SANDBOX__KUBERNETES__{name}"), value);
        [
            key("LISTEN", format!("{}{number}:{}", WORKERS.1, self.port)),
            key("ADVERTISE", format!("{}{number}", WORKERS.0)),
        ]
    }

    /// Orders something of it.
    pub(crate) fn control(&self, act: &str, body: &Value) -> Value {
        let output = Command::new("curl")
            .args([
                "-sS",
                "--max-time",
                "20",
                "-X",
                "POST",
                &format!("{}/_test/{act}", self.url),
            ])
            .args(["-d", &body.to_string()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A request as the worker's are, with its token.
    pub(crate) fn request(&self, method: &str, path: &str, body: &Value) -> Value {
        let account: Value = serde_json::from_slice(&std::fs::read(&self.kubeconfig).unwrap()).unwrap();
        let token = account["users"][0]["user"]["token"].as_str().unwrap();
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "20", "-X", method, &format!("{}{path}", self.url)])
            .args(["-H", &format!("authorization: Bearer {token}"), "-d", &body.to_string()])
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// From now on so many requests are answered so, or not for a while.
    pub(crate) fn fault(&self, method: &str, path: &str, count: u32, answer: Value) {
        let mut fault = json!({"method": method, "path": path, "count": count});
        fault
            .as_object_mut()
            .unwrap()
            .extend(answer.as_object().unwrap().clone());
        self.control("faults", &fault);
    }

    pub(crate) fn state(&self) -> Value {
        self.control("state", &Value::Null)
    }

    pub(crate) fn pods(&self) -> Vec<Value> {
        self.state()["pods"].as_array().unwrap().clone()
    }

    /// Every request was one that a real API would have understood, and nothing of the worker is left.
    pub(crate) fn assert_clean(&self) {
        // The garbage collector takes what a pod owned after it.
        let state = until(Duration::from_secs(30), "the end of all pods and their tickets", || {
            let state = self.state();
            (state["pods"] == json!([]) && state["secrets"] == json!([])).then_some(state)
        });
        assert_eq!(
            state["violations"],
            json!([]),
            "requests that break the published schemas"
        );
    }
}

/// Made once: the worker's image is not part of these tests.
fn tools_image() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("usr/local/bin");
        std::fs::create_dir_all(&place).unwrap();
        std::fs::copy(inside(), place.join("inside")).unwrap();
        let mut tar = Command::new("tar")
            .arg("-C")
            .arg(directory.path())
            .args(["-c", "usr"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Command::new("docker")
            .args(["import", "-", TOOLS])
            .stdin(tar.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(tar.wait().unwrap().success());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
}
