//! Describes every route of the table for programs (OpenAPI 3.1): who may use it, what it takes, what it answers.
//!
//! Who may use a route, and whether an idempotency key counts, is taken from the route table itself; what is common to all
//! routes of a kind follows from that. The rest is one line for each route, and a route without one fails a test.

mod admin;
mod oauth;
mod operation;
mod public;
pub(crate) mod schemas;
#[cfg(test)]
mod tests;

use axum::http::Method;
use tollgate_shared::id::IssuerId;
use utoipa::ToSchema;
use utoipa::openapi::info::InfoBuilder;
use utoipa::openapi::path::{HttpMethod, Parameter, PathsBuilder};
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, Ref, Schema, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::server::ServerBuilder;
use utoipa::openapi::{OpenApi, OpenApiBuilder, PathItem, RefOr};

use crate::access::Access;
use crate::app::{once_routes, routes};
use crate::published::Published;
use operation::{name_parameter, number_parameter, operation, query};
use schemas::{OAuthErrorSchema, ProblemSchema};

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const FORM: &str = "application/x-www-form-urlencoded";

/// A named schema and what adds it to the document, with all it refers to.
struct Shape {
    name: String,
    add: fn(ComponentsBuilder) -> ComponentsBuilder,
}

impl Shape {
    fn of<T: ToSchema>() -> Self {
        let add = |components: ComponentsBuilder| {
            let mut referred = Vec::new();
            T::schemas(&mut referred);
            components.schemas_from_iter(referred).schema_from::<T>()
        };
        Self { name: T::name().into_owned(), add }
    }

    fn reference(&self) -> RefOr<Schema> {
        Ref::from_schema_name(&self.name).into()
    }
}

/// What an answer carries.
enum Carried {
    Nothing,
    /// JSON of this shape.
    Json(Shape),
    /// One of these media types.
    Media(&'static [&'static str]),
    /// JSON of this shape, or this media type.
    Either(Shape, &'static str),
}

/// In what an endpoint says that it refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusals {
    /// RFC 9457.
    Problem,
    /// RFC 6749 section 5.2.
    OAuth,
}

/// What there is to say of a route beside what the table says.
struct Description {
    method: Method,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    query: Vec<Parameter>,
    body: Option<(&'static str, Shape)>,
    answer: (u16, Carried),
    more: Vec<u16>,
    headers: Vec<(&'static str, &'static str)>,
    if_match: bool,
    refusals: Refusals,
}

fn describe(method: Method, path: &'static str, id: &'static str, summary: &'static str) -> Description {
    Description {
        method,
        path,
        id,
        summary,
        query: Vec::new(),
        body: None,
        answer: (204, Carried::Nothing),
        more: Vec::new(),
        headers: Vec::new(),
        if_match: false,
        refusals: Refusals::Problem,
    }
}

impl Description {
    /// It takes JSON of this shape.
    fn takes<T: ToSchema>(mut self) -> Self {
        self.body = Some((JSON, Shape::of::<T>()));
        self
    }

    /// It takes a form of this shape, and says in OAuth's way what it refuses.
    fn takes_form<T: ToSchema>(mut self) -> Self {
        self.body = Some((FORM, Shape::of::<T>()));
        self.refusals = Refusals::OAuth;
        self
    }

    /// It answers with JSON of this shape.
    fn gives<T: ToSchema>(mut self, status: u16) -> Self {
        self.answer = (status, Carried::Json(Shape::of::<T>()));
        self
    }

    fn gives_media(mut self, media: &'static [&'static str]) -> Self {
        self.answer = (200, Carried::Media(media));
        self
    }

    fn gives_nothing(mut self, status: u16) -> Self {
        self.answer = (status, Carried::Nothing);
        self
    }

    /// The answer has an entity tag.
    fn tagged(mut self) -> Self {
        self.headers.push(("ETag", "The version, quoted"));
        self
    }

    /// The answer says where the new thing is.
    fn located(mut self) -> Self {
        self.headers.push(("Location", "The path of what was made"));
        self.tagged()
    }

    /// It is a page of a list.
    fn paged(self) -> Self {
        self.paged_by(name_parameter("after", "The `next` of the page before"))
    }

    /// The same where a page comes after something that is no name.
    fn paged_by(mut self, after: Parameter) -> Self {
        self.query.push(after);
        let limit = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(200));
        self.query.push(query("limit", "The most entries; 50 when missing", limit));
        self.headers.push(("Link", "Where the next page is (RFC 8288), if there is one"));
        self.and(&[400])
    }

    fn asks(mut self, parameter: Parameter) -> Self {
        self.query.push(parameter);
        self.and(&[400])
    }

    /// It heeds `If-Match`.
    fn conditional(mut self) -> Self {
        self.if_match = true;
        self.and(&[400, 412, 428])
    }

    /// It may also answer so.
    fn and(mut self, statuses: &[u16]) -> Self {
        self.more.extend(statuses);
        self
    }

    /// All statuses that it may answer with, but that of its success.
    fn refused(&self, access: Access, once: bool) -> Vec<u16> {
        let mut statuses = self.more.clone();
        match access {
            Access::Public => {}
            Access::Operator(_) | Access::Edge => statuses.extend([401, 403, 503]),
            Access::OAuthClient => statuses.extend([400, 401, 503]),
            Access::User => statuses.extend([401, 403, 503]),
        }
        if self.body.is_some() {
            statuses.extend([400, 408, 413]);
            if self.refusals == Refusals::Problem {
                statuses.push(415);
            }
        }
        if once {
            statuses.extend([400, 408, 409, 413, 422]);
        }
        if self.path.contains('{') {
            statuses.push(404);
        }
        statuses.sort_unstable();
        statuses.dedup();
        statuses
    }
}

/// All descriptions, also of routes that the table does not have.
fn descriptions() -> Vec<Description> {
    let mut all = public::descriptions();
    all.extend(oauth::descriptions());
    all.extend(admin::descriptions());
    all
}

/// The document, as it is sent.
pub(crate) fn published(issuer: &IssuerId) -> Published {
    // It consists of strings, numbers, lists and maps, which can always be written.
    Published::new(JSON, serde_json::to_string(&document(issuer)).unwrap_or_default())
}

/// The document: what the table and the descriptions say together.
fn document(issuer: &IssuerId) -> OpenApi {
    let once = once_routes();
    let all = descriptions();
    let mut components = components();
    let mut paths = PathsBuilder::new();
    for (method, path, access) in routes() {
        let found = all.iter().find(|one| one.method == method && one.path == path);
        let (Some(description), Some(verb)) = (found, verb(&method)) else { continue };
        let is_once = once.contains(&(method, path));
        components = shapes(description).into_iter().fold(components, |built, shape| (shape.add)(built));
        let item = PathItem::new(verb, operation(description, access, is_once));
        // OpenAPI has no catch-all; its template is that of one segment.
        paths = paths.path(path.replace("{*", "{"), item);
    }
    OpenApiBuilder::new()
        .info(InfoBuilder::new().title("Tollgate issuer").version(env!("CARGO_PKG_VERSION")).description(
            Some("Gives tokens, takes them back, and tells edges what they need to decide alone."),
        ))
        .servers(Some([ServerBuilder::new().url(issuer.as_str()).build()]))
        .paths(paths)
        .components(Some(components.build()))
        .build()
}

fn verb(method: &Method) -> Option<HttpMethod> {
    Some(match method.as_str() {
        "GET" => HttpMethod::Get,
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "PATCH" => HttpMethod::Patch,
        "DELETE" => HttpMethod::Delete,
        _ => return None,
    })
}

fn components() -> ComponentsBuilder {
    let http = |scheme: HttpAuthScheme, says: &str| {
        let mut http = Http::new(scheme);
        http.description = Some(says.to_owned());
        SecurityScheme::Http(http)
    };
    ComponentsBuilder::new()
        .schema_from::<ProblemSchema>()
        .schema_from::<OAuthErrorSchema>()
        .security_scheme("operator", http(HttpAuthScheme::Bearer, "The credential of an operator"))
        .security_scheme("edge", http(HttpAuthScheme::Bearer, "The credential of an edge"))
        .security_scheme("user", http(HttpAuthScheme::Bearer, "The access token of a person"))
        .security_scheme("client", http(HttpAuthScheme::Basic, "The id and secret of an OAuth client"))
}

fn shapes(description: &Description) -> Vec<&Shape> {
    let mut shapes = Vec::new();
    shapes.extend(description.body.as_ref().map(|(_, shape)| shape));
    match &description.answer.1 {
        Carried::Json(shape) | Carried::Either(shape, _) => shapes.push(shape),
        Carried::Nothing | Carried::Media(_) => {}
    }
    shapes
}
