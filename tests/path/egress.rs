//! The way out as a sandbox sees it: a script in a real sandbox asks the proxy on its loopback, and the test reads what it was answered.
//! The servers are the test's own, on the worker's loopback, which the operator's `allow_private` opens for them. Nothing leaves the machine.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{LAB, Ran, World, until};
use crate::kit::{Daemon, TlsFront};

/// What the scripts share: `rule NAME REQUEST` prints the name with the status and the rule of the answer.
const TOOLS: &str = r#"
ask() { exec 3<>/dev/tcp/127.0.0.1/8471 && printf "$1" >&3 && timeout 15 cat <&3 | tr -d '\000'; exec 3>&-; }
rule() { printf '<%s' "$1"; ask "$2" | grep -ao '^HTTP/1.1 [0-9]*\|^x-cofferdam-rule: [a-z_]*' | sed 's/.*[ ]//' | tr '\n' ' ' | sed 's/^/ /;s/ $//'; echo '>'; }
get() { rule "$1" "GET http://$2 HTTP/1.1\r\nConnection: close\r\n\r\n"; }
tunnel() { rule "$1" "CONNECT $2 HTTP/1.1\r\nConnection: close\r\n\r\n"; }
"#;

/// An agent that is this script, and the operator's section.
fn config(egress: &str, script: &str) -> String {
    format!(
        "[agents.script]\nimage = \"cofferdam/sandbox-scripted:test\"\ncommand = [\"bash\", \"/home/agent/ask.sh\"]\nprotocol = \"command\"\n\
         co_author = \"Script <script@agents.example>\"\nfiles = {{ \"ask.sh\" = '''{TOOLS}\n{script}''' }}\n[egress]\n{egress}\n"
    )
}

fn task(world: &World, egress: Value) -> Value {
    let mut task = world.lab_task("ask");
    task["agent"] = json!("script");
    task["egress"] = egress;
    task
}

fn host(url: &str) -> String {
    let port = url.rsplit(':').next().unwrap();
    format!("localhost:{port}")
}

fn port(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}

fn assert_said(ran: &Ran, expected: &[&str]) {
    let said = ran.said();
    for one in expected {
        assert!(said.contains(one), "{one} in\n{said}\nstderr: {}", ran.stderr);
    }
}

#[test]
fn without_a_grant_nothing_is_reached_and_every_answer_says_why() {
    let world = World::new();
    let script = format!(
        r#"
get plain {forge}/
tunnel tls pkgs.example:443
tunnel metadata 169.254.169.254:80
direct() {{ if timeout 5 bash -c "exec 3<>/dev/tcp/$1" 2>/dev/null; then echo "<direct $1 open>"; else echo "<direct $1 shut>"; fi; }}
direct 127.0.0.1/{own}; direct 192.0.2.1/443; direct 169.254.169.254/80
getent hosts pkgs.example >/dev/null && echo '<dns open>' || echo '<dns shut>'
git ls-remote http://other.invalid/x.git 2>&1 | grep -qi 403 && echo '<git http refused>'
git ls-remote https://other.invalid/x.git 2>&1 | grep -qi 403 && echo '<git https refused>'
git -C /workspace/greeter fetch -q && echo '<git to the gateway fine>'
ask "GET http://other.invalid/ HTTP/1.1\r\nConnection: close\r\n\r\n" | grep -a 'cofferdam refused'
env -i bash -c 'cat /proc/$PPID/environ' | tr '\0' '\n' | grep -ic '^[a-z]*_proxy=' | sed 's/.*/<variables &>/'
"#,
        forge = host(&world.forge),
        own = port(&world.forge),
    );
    // The operator's exception for loopback opens nothing by itself.
    let ran = world.exec_with(
        &config("allow_private = [\"127.0.0.0/8\"]", &script),
        &task(&world, Value::Null),
    );
    let shut = format!("<direct 127.0.0.1/{} shut>", port(&world.forge));
    assert_said(
        &ran,
        &[
            "<plain 403 level>",
            "<tls 403 level>",
            "<metadata 403 ip_address>",
            &shut,
            "<direct 192.0.2.1/443 shut>",
            "<direct 169.254.169.254/80 shut>",
            "<dns shut>",
            "<git http refused>",
            "<git https refused>",
            "<git to the gateway fine>",
            "cofferdam refused other.invalid:80 (level): this session reaches nothing but its projects",
            "whoever sends the task may ask for a higher",
            "<variables 8>",
        ],
    );
    assert_eq!(ran.reason(), "nothing_to_publish");
    world.assert_clean();
}

#[test]
fn a_level_above_the_operators_is_refused_before_anything_starts() {
    let world = World::new();
    let operator = config("most = \"registries\"", "true");
    let ran = world.exec_with(&operator, &task(&world, json!({"level": "open"})));
    assert_eq!(ran.reason(), "egress_refused");
    let message = ran.outcome()["message"].as_str().unwrap();
    assert!(
        message.contains("\"open\"") && message.contains("egress.most"),
        "{message}"
    );
    assert!(ran.all("cloned").is_empty() && ran.all("connected").is_empty());
    let bounded = config("most = \"open\"\nallow = [{ host = \".corp.example\" }]", "true");
    let beyond = json!({"level": "custom", "allow": [{"host": "evilcorp.example"}]});
    let ran = world.exec_with(&bounded, &task(&world, beyond));
    assert_eq!(ran.reason(), "egress_refused");
    assert!(ran.outcome()["message"].as_str().unwrap().contains("egress.allow"));
    // What contradicts itself is no task at all.
    for (wrong, code) in [
        (json!({"level": "custom"}), "egress_custom_without_allow"),
        (
            json!({"level": "open", "allow": [{"host": "a.example"}]}),
            "egress_allow_without_custom",
        ),
        (json!({"level": "custom", "allow": [{"host": "0x7f.1"}]}), "bad_field"),
    ] {
        let ran = world.exec_with(&operator, &task(&world, wrong));
        assert_eq!(ran.exit, 65, "{}", ran.stderr);
        assert!(
            ran.stderr.contains(code) || ran.stdout.contains(code),
            "{code}: {}{}",
            ran.stderr,
            ran.stdout
        );
    }
    world.assert_clean();
}

#[test]
fn custom_reaches_what_it_lists_by_name_port_method_and_server_name() {
    let world = World::new();
    let front = TlsFront::new(&world.forge);
    let (plain, tls) = (host(&world.forge), host(&front.url));
    let script = format!(
        r#"
get listed {plain}/gitlab/api/v4/version
rule method "POST http://{plain}/ HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
tunnel hidden {plain}
get port localhost:1/
get host other.example/
tunnel ssh localhost:22
tls() {{ printf 'GET /gitlab/api/v4/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' | timeout 20 openssl s_client -quiet \
  -proxy 127.0.0.1:8471 -connect {tls} "$@" 2>&1; }}
tls -servername localhost | grep -ao '^HTTP/1.[01] [0-9]*' | sed 's/.*/<tunnel &>/'
tls -servername evil.example | grep -aqi 'unrecognized name' && echo '<other name: alert>'
tls -noservername | grep -aqi 'unrecognized name' && echo '<no name: alert>'
ask "CONNECT {tls} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n" | grep -ao '(not_tls)' | sed 's/.*/<no tls: &>/'
"#
    );
    let egress = json!({"level": "custom", "allow": [
        {"host": "localhost", "ports": [port(&world.forge)], "methods": ["GET", "HEAD"]},
        {"host": "localhost", "ports": [port(&front.url)]},
    ]});
    let operator = config("most = \"custom\"\nallow_private = [\"127.0.0.0/8\"]", &script);
    let ran = world.exec_with(&operator, &task(&world, egress));
    let said = ran.said();
    let listed = said
        .lines()
        .find(|line| line.starts_with("<listed"))
        .unwrap_or_default();
    // Whatever the forge thinks of it: it was the forge that answered.
    assert!(
        listed.len() == "<listed 200>".len() && !listed.contains("403"),
        "{said}"
    );
    assert_said(
        &ran,
        &[
            "<method 403 method>",
            "<hidden 403 tunnel_method>",
            "<port 403 port>",
            "<host 403 host>",
            "<ssh 403 port>",
            "<tunnel HTTP/1.",
            "<other name: alert>",
            "<no name: alert>",
            "<no tls: (not_tls)>",
        ],
    );
    let rules: Vec<&str> = ran
        .all("egress_refused")
        .iter()
        .filter_map(|data| data["rule"].as_str())
        .collect();
    for rule in ["method", "tunnel_method", "port", "host", "server_name", "not_tls"] {
        assert!(rules.contains(&rule), "{rule} in {rules:?}");
    }
    world.assert_clean();
}

#[test]
fn registries_reaches_its_list_and_reads_only() {
    let world = World::new();
    let script = format!(
        r#"
get other {forge}/
tunnel unlisted evil.example:443
tunnel package-port localhost:22
rule write "PUT http://localhost/ HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
tunnel private localhost:443
"#,
        forge = host(&world.forge),
    );
    // A listed host that leads into the worker is as closed as any other.
    let operator = config("most = \"registries\"\nregistries = [\"localhost\"]", &script);
    let ran = world.exec_with(&operator, &task(&world, json!({"level": "registries"})));
    assert_said(
        &ran,
        &[
            "<other 403 port>",
            "<unlisted 403 host>",
            "<package-port 403 port>",
            "<write 403 method>",
            "<private 403 address>",
        ],
    );
    world.assert_clean();
}

#[test]
fn refusals_are_events_metrics_and_a_line_in_the_change_request_and_a_flood_is_bounded() {
    let world = World::new();
    let script = format!(
        r#"
get open {forge}/gitlab/api/v4/version
for notation in 127.0.0.1 127.1 2130706433 017700000001 0x7f000001 0x7f.1 0177.0.0.1 127.0.0.0x1 '[::1]' '[::ffff:127.0.0.1]'; do
  get "literal $notation" "$notation/"; done
get nul 'a\000b.example/'; get percent 'a%%00b.example/'; get evil 'a_b`@all](x)/'
for n in $(seq 100); do ask "CONNECT 10.0.0.$n:443 HTTP/1.1\r\nConnection: close\r\n\r\n" >/dev/null; done
cd /workspace/greeter && echo b > a.txt && git add a.txt && git commit -qm 'Add a file' && echo '<committed>'
"#,
        forge = host(&world.forge),
    );
    let operator = config("most = \"open\"\nallow_private = [\"127.0.0.0/8\"]", &script);
    let daemon = Daemon::start(&world, &operator);
    let ran = daemon.submit(&world, &task(&world, json!({"level": "open"})));
    assert_eq!(ran.reason(), "published", "{}", ran.said());
    let said = ran.said();
    let open = said.lines().find(|line| line.starts_with("<open")).unwrap_or_default();
    assert!(open.len() == "<open 200>".len() && !open.contains("403"), "{said}");
    assert_eq!(said.matches(" 403 ip_address>").count(), 10, "{said}");
    for name in ["nul", "percent", "evil"] {
        let line = said
            .lines()
            .find(|line| line.starts_with(&format!("<{name}")))
            .unwrap_or_default();
        assert!(line.contains(" 400") || line.contains(" 403"), "{line} in {said}");
    }
    let events = ran.all("egress_refused");
    assert_eq!(events.len(), 64, "each of a bounded number once");
    let requests = world.project(LAB)["change_requests"].clone();
    let description = requests[0]["description"].as_str().unwrap();
    assert!(description.contains("## Refused network access"), "{description}");
    assert!(
        description.contains("(ip_address)") && description.contains(" more"),
        "{description}"
    );
    assert!(!description.contains("@all"), "{description}");
    let metric = |name: &str| {
        let page = daemon.page("/metrics");
        let line = page.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok()))
    };
    let refused = until(Duration::from_secs(10), "the metric", || {
        metric("cofferdam_egress_refused_total{rule=\"ip_address\"}")
    });
    assert!(refused >= 110, "{refused}");
    assert!(metric("cofferdam_egress_requests_total{level=\"open\"}").unwrap() >= 111);
    assert_eq!(metric("cofferdam_egress_refused_total{rule=\"level\"}"), Some(0));
    world.assert_clean();
}

/// The way out is the sandbox's: neither a set-up nor a child that an agent starts (an MCP server, say) has another one, and the set-up's is the
/// operator's, whatever the task asks for.
#[test]
fn set_up_and_children_have_no_other_way_out_and_the_set_up_has_the_operators() {
    let world = World::new();
    let plain = host(&world.forge);
    // Started as a server over its standard streams, in a session of its own, with an environment of its own.
    let child = format!(
        r#"
cat >/tmp/child.sh <<'END'
{TOOLS}
read line
get "$line-listed" {plain}/gitlab/api/v4/version
get "$line-other" other.example/
if timeout 5 bash -c 'exec 3<>/dev/tcp/{direct}' 2>/dev/null; then echo "<$line-direct open>"; else echo "<$line-direct shut>"; fi
END
echo child | setsid env -i PATH="$PATH" bash /tmp/child.sh
"#,
        direct = plain.replace("localhost:", "127.0.0.1/")
    );
    let set_up = format!(
        "[agents.script.set_up]\nscript = '''\ncat >/tmp/ask.sh <<\"END\"\n{TOOLS}\nget listed {plain}/gitlab/api/v4/version\nEND\n\
         bash /tmp/ask.sh >/workspace/set-up.txt\n'''\n"
    );
    let script = format!("{child}\nsed 's/^</<set-up /' /workspace/set-up.txt\n");
    let operator = config("most = \"custom\"\nallow_private = [\"127.0.0.0/8\"]", &script);
    let operator = operator.replace("[egress]", &format!("{set_up}[egress]"));
    let egress = json!({"level": "custom", "allow": [{"host": "localhost", "ports": [port(&world.forge)]}]});
    let ran = world.exec_with(&operator, &task(&world, egress));
    assert_said(
        &ran,
        &[
            "<child-other 403 host>",
            "<child-direct shut>",
            "<set-up listed 403 level>",
        ],
    );
    let said = ran.said();
    let listed = said.lines().find(|line| line.starts_with("<child-listed"));
    assert!(
        listed.is_some_and(|line| line.len() == "<child-listed 200>".len() && !line.contains("403")),
        "{said}"
    );
    world.assert_clean();
}
