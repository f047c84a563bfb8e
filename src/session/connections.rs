//! The connections of a running session: each a forge with a credential that can be replaced or dropped while the session goes on.
//!
//! Whoever needs a forge asks for the current one at that moment and does not keep it. A dropped connection never comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::Digest as _;
use tokio::sync::{Notify, watch};

use super::failure::Failure;
use super::{Rooms, identity};
use crate::forge::{Forge, TokenFacts};
use crate::grant::Identity;
use crate::message::task::ConnectionRequest;
use crate::message::{ConnectionName, Credential, EventBody, ForgeKind, Reason, Right, Task};
use crate::repository::Access;
use crate::secret::Secret;

/// A forge that was asked about a token and answered.
pub(super) struct Connected {
    pub(super) forge: Arc<dyn Forge>,
    pub(super) facts: TokenFacts,
    pub(super) identity: Identity,
    pub(super) access: Access,
}

impl Connected {
    /// Asks the forge what a token is and may do.
    pub(super) async fn ask(
        rooms: &Rooms,
        task: &Task,
        request: &ConnectionRequest,
        secret: &Secret,
    ) -> Result<Self, Failure> {
        let forge = rooms
            .connect
            .connect(request.forge, request.url.as_deref(), secret, request.ca.as_deref())?;
        let facts = forge.token().await?;
        let identity = commit_identity(task, &facts)?;
        let basic_user = match request.forge {
            ForgeKind::Gitlab => "oauth2",
            ForgeKind::Github => "x-access-token",
        };
        let access = Access {
            token: secret.clone(),
            basic_user: basic_user.to_owned(),
            account: mirror_owner(&facts, secret),
            ca_file: rooms.repositories.trust(request.ca.as_deref()).await?,
        };
        Ok(Self {
            forge,
            facts,
            identity,
            access,
        })
    }

    /// Whether another credential is surely of the same user; `None` where neither forge nor token tells.
    pub(super) fn is_same_user(&self, other: &Self) -> Option<bool> {
        let (one, other) = (&self.facts, &other.facts);
        match (one.user_id, other.user_id) {
            (Some(one), Some(other)) => Some(one == other),
            _ if !one.account.is_empty() && !other.account.is_empty() => Some(one.account == other.account),
            _ => None,
        }
    }

    /// Whether the API is closed to the token, so that git alone tells and does everything.
    pub(super) fn is_git_only(&self) -> bool {
        self.facts.capabilities.read_projects == Right::GitOnly
    }

    /// The event that tells it.
    pub(super) fn told(&self, connection: &ConnectionName) -> EventBody {
        EventBody::Connected {
            connection: connection.clone(),
            account: self.facts.account.clone(),
            scopes: self.facts.scopes.clone(),
            expires: self.facts.expires.clone(),
            capabilities: self.facts.capabilities,
        }
    }
}

/// Whose mirror it is where mirrors are not shared: the account's number, its name, or at worst the token's own.
fn mirror_owner(facts: &TokenFacts, secret: &Secret) -> String {
    match (facts.user_id, facts.account.as_str()) {
        (Some(id), _) => format!("user {id}"),
        (None, "") => format!(
            "token {}",
            hex::encode(sha2::Sha256::digest(secret.expose().as_bytes()))
        ),
        (None, name) => name.to_owned(),
    }
}

/// Author and committer: the token's own user, because push rules refuse others; the task's user where the forge does not tell.
fn commit_identity(task: &Task, facts: &TokenFacts) -> Result<Identity, Failure> {
    let own = identity::make(&facts.name, &facts.email).or_else(|| identity::make(&facts.account, &facts.email));
    let given = task
        .user
        .as_ref()
        .and_then(|user| identity::make(&user.name, &user.email));
    own.or(given).ok_or_else(|| {
        let message =
            "the forge tells no e-mail address for the token's user: put \"user\" with name and email into the task";
        Failure::new(Reason::CredentialRefused, message)
    })
}

/// One connection of a session.
#[derive(Debug)]
pub(super) struct Connection {
    name: ConnectionName,
    /// How it was asked for; with the last credential that was taken.
    request: Mutex<ConnectionRequest>,
    slot: watch::Sender<Option<Arc<Connected>>>,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Connected").finish_non_exhaustive()
    }
}

impl Connection {
    /// What it is connected to now.
    pub(super) fn current(&self) -> Result<Arc<Connected>, Failure> {
        self.slot.borrow().clone().ok_or_else(|| self.dropped())
    }

    /// A fresh credential. Says whether the connection still was there to take it.
    pub(super) fn renew(&self, connected: Connected, credential: &Credential) -> bool {
        self.slot.send_if_modified(|slot| {
            let open = slot.is_some();
            if open {
                *slot = Some(Arc::new(connected));
                self.request.lock().unwrap_or_else(PoisonError::into_inner).credential = credential.clone();
            }
            open
        })
    }

    /// How it is asked for.
    pub(super) fn request(&self) -> ConnectionRequest {
        self.request.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it was dropped.
    pub(super) fn is_closed(&self) -> bool {
        self.slot.borrow().is_none()
    }

    /// Forgets the credential for good.
    pub(super) fn close(&self) {
        self.slot.send_replace(None);
    }

    /// Ends when the connection is dropped.
    pub(super) async fn closed(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.slot.subscribe().wait_for(Option::is_none).await;
    }

    /// Waits for another credential than that one.
    pub(super) async fn renewed(&self, old: &Arc<Connected>) -> Result<Arc<Connected>, Failure> {
        let mut slot = self.slot.subscribe();
        let other = |slot: &Option<Arc<Connected>>| slot.as_ref().is_none_or(|now| !Arc::ptr_eq(now, old));
        let found = slot.wait_for(other).await.ok().and_then(|slot| slot.clone());
        found.ok_or_else(|| self.dropped())
    }

    /// The failure of whoever needed it.
    pub(super) fn dropped(&self) -> Failure {
        let message = format!("the connection {} was dropped by a control message", self.name);
        Failure::new(Reason::Disconnected, message)
    }
}

/// All connections of a session; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections(Arc<Mutex<BTreeMap<ConnectionName, Arc<Connection>>>>, Arc<Notify>);

impl Connections {
    /// Opens one.
    pub(super) fn open(
        &self,
        name: &ConnectionName,
        request: ConnectionRequest,
        connected: Connected,
    ) -> Arc<Connection> {
        let connection = Arc::new(Connection {
            name: name.clone(),
            request: Mutex::new(request),
            slot: watch::Sender::new(Some(Arc::new(connected))),
        });
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.clone(), connection.clone());
        self.1.notify_waiters();
        connection
    }

    /// Ends with the failure when any of them is dropped.
    pub(super) async fn any_dropped(&self) -> Failure {
        loop {
            // Before the look, so that none that is opened after it goes unheard.
            let opened = self.1.notified();
            let all: Vec<_> = self
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .values()
                .cloned()
                .collect();
            if all.is_empty() {
                opened.await;
                continue;
            }
            let closed = futures::future::select_all(all.iter().map(|one| Box::pin(one.closed())));
            tokio::select! {
                (_, index, _) = closed => {
                    let mut failure = all[index].dropped();
                    failure.message += " before the agent began: send the task again without it";
                    return failure;
                }
                () = opened => {}
            }
        }
    }

    /// The one of that name.
    pub(super) fn get(&self, name: &ConnectionName) -> Option<Arc<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Takes one back that nobody used yet, with its credential: as if it had never been opened.
    pub(super) fn take_back(&self, connection: &Arc<Connection>) {
        connection.close();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, one| !Arc::ptr_eq(one, connection));
    }

    /// Those that were dropped.
    pub(super) fn dropped(&self) -> BTreeSet<ConnectionName> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = all.iter().filter(|(_, connection)| connection.is_closed());
        dropped.map(|(name, _)| name.clone()).collect()
    }

    /// Those that are there and that a task does not have, or not with the credential that they have now.
    pub(super) fn beyond(&self, task: &Task) -> BTreeMap<ConnectionName, ConnectionRequest> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let there = all.iter().filter(|(_, connection)| !connection.is_closed());
        let is_of_task = |name: &ConnectionName, request: &ConnectionRequest| {
            let of_task = task.connections.get(name);
            of_task.is_some_and(|of_task| of_task.credential.is_same(&request.credential))
        };
        there
            .map(|(name, connection)| (name.clone(), connection.request()))
            .filter(|(name, request)| !is_of_task(name, request))
            .collect()
    }
}
