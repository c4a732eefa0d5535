//! Writes into the issuer's database what would take long to bring about by asking.

use std::path::Path;

use anyhow::Result;
use sha2::{Digest as _, Sha256};
use sqlx::{AnyConnection, Connection as _, Executor as _};

async fn connect(data: &Path) -> Result<AnyConnection> {
    sqlx::any::install_default_drivers();
    let path = data.join("tollgate.sqlite3");
    let mut connection = AnyConnection::connect(&format!("sqlite://{}", path.display())).await?;
    connection.execute("PRAGMA busy_timeout = 20000").await?;
    Ok(connection)
}

/// Makes so many edges; gives back their credentials.
pub(crate) async fn add_edges(data: &Path, count: usize) -> Result<Vec<String>> {
    let mut connection = connect(data).await?;
    let mut write = connection.begin().await?;
    let mut credentials = Vec::with_capacity(count);
    for number in 0..count {
        let (id, secret) = (format!("{number:08}"), format!("{number:032}"));
        let insert = "INSERT INTO credentials (id, kind, name, digest, created_at, permissions) \
                      VALUES ($1, 'edge', $2, $3, 1, '[]')";
        sqlx::query(insert)
            .bind(&id)
            .bind(format!("edge-{number}"))
            .bind(Sha256::digest(secret.as_bytes()).to_vec())
            .execute(&mut *write)
            .await?;
        credentials.push(format!("tge_{id}_{secret}"));
    }
    write.commit().await?;
    connection.close().await?;
    Ok(credentials)
}

/// Revokes so many sessions in one transaction, while the issuer is away or behind its back; the last position.
pub(crate) async fn revoke_sessions(data: &Path, count: u64) -> Result<u64> {
    let insert = format!(
        "INSERT INTO feed_log (position, kind, dimension, value, until, actor, created_at) \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
         SELECT (SELECT MAX(position) FROM feed_log) + i, 'cutoff', 'session', 's_' || lower(hex(randomblob(11))), \
         unixepoch() + 86400, 'bench', unixepoch() FROM n"
    );
    write(data, &insert).await
}

/// Revokes so many tokens, whose indices are spread over so many blocks; the last position.
pub(crate) async fn revoke_tokens(data: &Path, count: u64, blocks: u64) -> Result<u64> {
    // A step that has no divisor in common with the number of indices meets each of them once.
    let indices = blocks * 65_536;
    let block = format!(
        "INSERT INTO status_blocks (block, taken_at, expires_at) \
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {}) \
         SELECT i, unixepoch(), unixepoch() + 86400 FROM n WHERE true ON CONFLICT DO NOTHING",
        blocks - 1
    );
    write(data, &block).await?;
    let insert = format!(
        "INSERT INTO feed_log (position, kind, status_index, until, actor, created_at) \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
         SELECT (SELECT MAX(position) FROM feed_log) + i, 'index', \
         ((SELECT MAX(position) FROM feed_log) + i) * 40503 % {indices}, unixepoch() + 86400, 'bench', unixepoch() FROM n"
    );
    write(data, &insert).await
}

async fn write(data: &Path, statement: &str) -> Result<u64> {
    let mut connection = connect(data).await?;
    connection.execute(sqlx::AssertSqlSafe(statement.to_owned())).await?;
    let last: i64 =
        sqlx::query_scalar("SELECT MAX(position) FROM feed_log").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(last.unsigned_abs())
}
