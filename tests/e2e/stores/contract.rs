//! The rules that the store keeps whatever database it is kept in. Each is tried on an empty one.

mod api_keys;
mod audit;
mod feed;
mod keys;
mod moves;
mod once;
mod oversight;
mod people;
mod quota;
mod rights;
mod schema;
mod sessions;
mod throttle;
mod users;

/// Makes one test for each kind of database, which tries every rule of its list.
macro_rules! on_every_backend {
    ($($rule:ident),+ $(,)?) => {
        async fn all(kind: crate::stores::backend::Kind) {
            $(
                println!("{kind:?}: {}", stringify!($rule).replace('_', " "));
                $rule(&crate::stores::backend::Backend::new(kind).await).await;
            )+
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn holds_in_sqlite() {
            all(crate::stores::backend::Kind::Sqlite).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn holds_in_postgres() {
            all(crate::stores::backend::Kind::Postgres).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn holds_in_three_databases() {
            all(crate::stores::backend::Kind::Sharded).await;
        }
    };
}
use on_every_backend;
pub(super) use people::new_user;
