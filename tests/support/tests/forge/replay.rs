//! Every recorded exchange of the real forges that the test forge has a route for, sent again: same status, same headers that matter, same
//! shape of the body.
//!
//! What an exchange presupposes (a project, a merge request that is merged, fifty issues) is seeded for it, as its own answer tells it.
//! Never compares values: people, times and ids are others.

mod github;
mod gitlab;

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::Value;

use crate::data;
use crate::shapes::{observed, paths};
use crate::world::{Got, World, client, got};

/// One recorded exchange.
pub(crate) struct Exchange {
    pub(crate) number: usize,
    pub(crate) method: String,
    /// Below the API's root, with the query.
    pub(crate) path: String,
    pub(crate) route: String,
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

impl Exchange {
    fn read(number: usize, line: &str, root: &str) -> Self {
        let all: Value = serde_json::from_str(line).unwrap();
        let url = all["url"].as_str().unwrap();
        let path = url.split_once("://").unwrap().1.split_once('/').unwrap().1;
        let headers = all["headers"].as_object().unwrap().iter();
        Self {
            number,
            method: all["method"].as_str().unwrap().to_owned(),
            path: format!("/{path}").trim_start_matches(root).to_owned(),
            route: all["route"].as_str().unwrap().to_owned(),
            status: u16::try_from(all["status"].as_u64().unwrap()).unwrap(),
            headers: headers
                .map(|(name, value)| (name.to_lowercase(), value.as_str().unwrap_or_default().to_owned()))
                .collect(),
            body: all["body"].clone(),
        }
    }

    /// The query with its question mark, or nothing.
    pub(crate) fn query(&self) -> String {
        self.path
            .split_once('?')
            .map(|(_, query)| format!("?{query}"))
            .unwrap_or_default()
    }

    /// A path that no other exchange uses.
    pub(crate) fn own(&self, what: &str) -> String {
        format!("{what}-{}", self.number)
    }

    pub(crate) fn key(&self) -> (&str, &str, u16) {
        (&self.method, &self.route, self.status)
    }

    /// How many rows the list has in all: as the headers say, or as many as make its pages.
    pub(crate) fn rows(&self, per_page: usize) -> usize {
        let here = self.body.as_array().map_or(0, Vec::len);
        if let Some(total) = self.headers.get("x-total").and_then(|total| total.parse().ok()) {
            return total;
        }
        let link = self.headers.get("link").cloned().unwrap_or_default();
        let page = |rel: &str| -> Option<usize> {
            let part = link.split(", ").find(|part| part.contains(&format!("rel=\"{rel}\"")))?;
            let query = part.split('>').next()?;
            query
                .rsplit(['?', '&'])
                .find_map(|pair| pair.strip_prefix("page="))?
                .parse()
                .ok()
        };
        let last = page("last").or_else(|| page("prev").map(|page| page + 1));
        last.map_or(here, |last| (last - 1) * per_page + 1)
    }
}

/// A request to the test forge that stands for a recorded one.
pub(crate) struct Again {
    pub(crate) path: String,
    pub(crate) token: &'static str,
    pub(crate) body: Option<Value>,
}

impl Again {
    pub(crate) fn get(path: String, token: &'static str) -> Self {
        Self {
            path,
            token,
            body: None,
        }
    }
}

/// Headers that clients act on.
const MATTER: [&str; 22] = [
    "link",
    "x-total",
    "x-total-pages",
    "x-page",
    "x-per-page",
    "x-next-page",
    "x-prev-page",
    "ratelimit-limit",
    "ratelimit-observed",
    "ratelimit-remaining",
    "ratelimit-reset",
    "ratelimit-resettime",
    "ratelimit-name",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-used",
    "x-ratelimit-resource",
    "x-oauth-scopes",
    "x-accepted-oauth-scopes",
    "etag",
    "location",
];

/// Those of which an answer must not have more either: they say how a list goes on.
const PAGING: [&str; 7] = [
    "link",
    "x-total",
    "x-total-pages",
    "x-page",
    "x-per-page",
    "x-next-page",
    "x-prev-page",
];

/// What a `Link` offers: each relation with the names of its parameters.
fn links(link: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    for part in link.split(", ").filter(|part| !part.is_empty()) {
        let (url, rel) = part.split_once(">; rel=").unwrap();
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let names = query.split('&').map(|pair| pair.split('=').next().unwrap().to_owned());
        all.insert(rel.trim_matches('"').to_owned(), names.collect());
    }
    all
}

fn headers(exchange: &Exchange, answer: &Got) -> Vec<String> {
    let mut wrong = Vec::new();
    for name in MATTER {
        let (recorded, ours) = (exchange.headers.contains_key(name), answer.headers.contains_key(name));
        if recorded && !ours {
            wrong.push(format!("header {name} is missing"));
        }
        if ours && !recorded && PAGING.contains(&name) {
            wrong.push(format!("header {name} is too many"));
        }
    }
    let (recorded, ours) = (
        links(exchange.headers.get("link").map_or("", String::as_str)),
        links(answer.header("link")),
    );
    for (rel, names) in &recorded {
        match ours.get(rel) {
            None => wrong.push(format!("link {rel} is missing")),
            Some(have) => {
                let lost: Vec<&String> = names.difference(have).collect();
                if !lost.is_empty() {
                    wrong.push(format!("link {rel} lacks {lost:?}"));
                }
            }
        }
    }
    for rel in ours.keys().filter(|rel| !recorded.contains_key(*rel)) {
        wrong.push(format!("link {rel} is too many"));
    }
    wrong
}

/// Fields in which the double differs on purpose: the route (`*` for all), a part of the path, and why.
type Exceptions = &'static [(&'static str, &'static str, &'static str)];

/// Every key of the recorded body with a type that this one or another sample had.
fn body(exchange: &Exchange, observed: &Value, answer: &Got, except: Exceptions) -> Vec<String> {
    let (mut want, mut have) = (BTreeMap::new(), BTreeMap::new());
    paths(&exchange.body, "", &mut want);
    paths(&answer.body, "", &mut have);
    let shape = &observed[format!("{} {} {}", exchange.method, exchange.route, exchange.status)]["fields"];
    let mut wrong = Vec::new();
    if exchange.body.is_object() != answer.body.is_object() || exchange.body.is_array() != answer.body.is_array() {
        wrong.push(format!("the body is another kind of thing: {}", answer.body));
    }
    for (path, kinds) in &want {
        let plain = format!(".{}.", path.replace("[]", ""));
        let excepted = |(route, part, _): &(&str, &str, &str)| {
            (*route == "*" || *route == exchange.route) && plain.contains(&format!(".{part}."))
        };
        if except.iter().any(excepted) {
            continue;
        }
        let parent = path.rsplit_once('.').map(|(parent, _)| parent.trim_end_matches("[]"));
        let parent_is_null = parent.is_some_and(|parent| {
            have.get(parent)
                .is_some_and(|all| all.iter().all(|kind| *kind == "null"))
        });
        match have.get(path) {
            // Said where the parent itself is compared.
            None if parent_is_null => {}
            None => wrong.push(format!("{path} is missing")),
            Some(ours) => {
                let seen = shape[path]["types"].as_array().cloned().unwrap_or_default();
                let known = |kind: &&str| kinds.contains(kind) || seen.iter().any(|one| one.as_str() == Some(*kind));
                if let Some(odd) = ours.iter().find(|kind| !known(kind)) {
                    wrong.push(format!("{path} is {odd}, recorded was {kinds:?}, seen were {seen:?}"));
                }
            }
        }
    }
    wrong
}

struct Side {
    name: &'static str,
    file: &'static str,
    root: &'static str,
    except: Exceptions,
    skipped: &'static [(&'static str, &'static str, &'static str)],
    /// So many are covered: fewer means that some were lost.
    floor: usize,
}

fn exchanges(side: &Side) -> Option<Vec<Exchange>> {
    let path = data::directory()?.join(side.name).join(side.file);
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().enumerate();
    Some(
        lines
            .map(|(number, line)| Exchange::read(number + 1, line, side.root))
            .collect(),
    )
}

async fn replay(side: &Side, world: &World, plan: impl AsyncFn(&World, &Exchange) -> Option<Again>) {
    let Some(exchanges) = exchanges(side) else {
        return;
    };
    let observed = observed(side.name).unwrap();
    let still = client()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let (mut covered, mut skipped, mut wrong) = (0, BTreeMap::new(), Vec::new());
    for exchange in &exchanges {
        let name = format!("{} {} {}", exchange.method, exchange.route, exchange.status);
        let skip = side
            .skipped
            .iter()
            .find(|(method, route, _)| (*method == "*" || *method == exchange.method) && *route == exchange.route);
        if let Some((_, _, why)) = skip {
            skipped.entry((name, *why)).and_modify(|count| *count += 1).or_insert(1);
            continue;
        }
        let Some(again) = plan(world, exchange).await else {
            panic!(
                "line {}: {name} is neither replayed nor skipped with a reason",
                exchange.number
            );
        };
        let method: Method = exchange.method.parse().unwrap();
        let request = match side.name {
            "gitlab" => world.gitlab(method, &again.path, again.token),
            _ => world.github(method, &again.path, again.token),
        };
        let request = match &again.body {
            Some(body) => request.json(body),
            None => request,
        };
        // A redirect is an answer here, not to be followed.
        let answer = got(reqwest::RequestBuilder::from_parts(
            still.clone(),
            request.build().unwrap(),
        ))
        .await;
        covered += 1;
        let mut said = Vec::new();
        if answer.status == exchange.status {
            said.extend(headers(exchange, &answer));
            said.extend(body(exchange, &observed, &answer, side.except));
        } else {
            said.push(format!("status {}: {}", answer.status, answer.body));
        }
        wrong.extend(
            said.into_iter()
                .map(|why| format!("line {}: {name}: {why}", exchange.number)),
        );
    }
    eprintln!(
        "{}: {covered} of {} recorded exchanges replayed",
        side.name,
        exchanges.len()
    );
    for ((name, why), count) in skipped {
        eprintln!("  not replayed: {count} x {name}: {why}");
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    assert!(
        covered >= side.floor,
        "only {covered} are replayed, {} were",
        side.floor
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_answers_as_recorded() {
    let world = World::with(gitlab::SEED).await;
    replay(&gitlab::SIDE, &world, gitlab::plan).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn github_answers_as_recorded() {
    let world = World::with(github::SEED).await;
    replay(&github::SIDE, &world, github::plan).await;
}
