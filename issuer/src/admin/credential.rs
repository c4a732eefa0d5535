//! Decides who gets a credential as an edge or as an operator.

use tollgate_shared::id::EdgeId;

use super::{Actor, Entry, OrderError, named};
use crate::app::App;
use crate::audit::Action;
use crate::credential::{CredentialKind, NewCredential};
use crate::permission::Permissions;
use crate::store::StoreError;

impl App {
    /// Makes an edge's credential.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn add_edge(&self, id: &str, actor: &Actor) -> Result<NewCredential, OrderError> {
        let entry = Entry { actor, action: Action::EdgeCreate, target: id, detail: String::new() };
        let adding = async {
            // It stands in configurations and in URLs.
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let edge = EdgeId::new(id).filter(|id| id.as_str().bytes().all(plain));
            let edge = edge.ok_or(OrderError::Name("id"))?;
            // What an edge may do is the same for all of them.
            let (kind, none) = (CredentialKind::Edge, Permissions::Only([].into()));
            Ok(self.store.add_credential(kind, edge.as_str(), &none, &*self.host).await?)
        };
        self.recorded(entry, adding).await
    }

    /// Withdraws an edge's credential.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn remove_edge(&self, id: &str, actor: &Actor) -> Result<(), OrderError> {
        let entry = Entry { actor, action: Action::EdgeRemove, target: id, detail: String::new() };
        let removing = async {
            let withdrawn =
                self.store.withdraw_credential(CredentialKind::Edge, id, self.host.seconds()).await;
            // Also when it is not known whether it was.
            self.edge_credentials.forget();
            withdrawn?;
            if let Ok(mut edges) = self.edges_seen.lock() {
                edges.remove(id);
            }
            Ok(())
        };
        self.recorded(entry, removing).await
    }

    /// Makes a credential for an operator who may do what is named; everything when nothing is. Nobody gives what they do
    /// not have.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn add_operator(
        &self,
        name: &str,
        permissions: &[String],
        actor: &Actor,
    ) -> Result<NewCredential, OrderError> {
        let ordered = Permissions::ordered(permissions);
        let detail = ordered.as_ref().map(|ordered| ordered.names().join(" ")).unwrap_or_default();
        let entry = Entry { actor, action: Action::OperatorCreate, target: name, detail };
        let adding = async {
            named("operator", name)?;
            let permissions = ordered.ok_or(OrderError::Permission)?;
            if !permissions.are_within(&actor.permissions) {
                return Err(OrderError::MoreThanOwn);
            }
            let kind = CredentialKind::Operator;
            Ok(self.store.add_credential(kind, name, &permissions, &*self.host).await?)
        };
        self.recorded(entry, adding).await
    }

    /// Withdraws an operator's credential. Nobody does that to one who may more: under the name that is free then, the
    /// audit log would have somebody else.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn remove_operator(&self, name: &str, actor: &Actor) -> Result<(), OrderError> {
        let entry = Entry { actor, action: Action::OperatorRemove, target: name, detail: String::new() };
        let removing = async {
            named("operator", name)?;
            let operators = self.store.operators().await?;
            let known = operators.iter().find(|(known, _)| known == name);
            let (_, permissions) = known.ok_or(StoreError::Missing)?;
            if !permissions.are_within(&actor.permissions) {
                return Err(OrderError::MoreThanOwn);
            }
            let now = self.host.seconds();
            Ok(self.store.withdraw_credential(CredentialKind::Operator, name, now).await?)
        };
        self.recorded(entry, removing).await
    }
}
