//! Calls that a program of Go makes before `main`: values of a package's variables, and `init`.

use std::collections::HashMap;

use tree_sitter::{Node, Tree};

use super::{Call, DEPTH_MAX, Kind, Page, arguments, children, rules::Rule};

const RANDOM: Option<Kind> = Some(Kind::Random);
const CLOCK: Option<Kind> = Some(Kind::Clock);
const CLIENT: Option<Kind> = Some(Kind::Client);

const RULES: &[Rule] = &[
    ("github.com/google/uuid.NewSHA1", None),
    ("github.com/google/uuid.NewMD5", None),
    ("github.com/google/uuid.NewHash", None),
    ("github.com/google/uuid.New*", RANDOM),
    ("github.com/gofrs/uuid*.NewV3", None),
    ("github.com/gofrs/uuid*.NewV5", None),
    ("github.com/gofrs/uuid*.NewV*", RANDOM),
    ("github.com/satori/go.uuid.NewV*", RANDOM),
    ("github.com/rs/xid.New", RANDOM),
    ("github.com/segmentio/ksuid.New", RANDOM),
    ("github.com/oklog/ulid*.Make", RANDOM),
    ("github.com/oklog/ulid*.MustNew", RANDOM),
    ("go.mongodb.org/mongo-driver/bson/primitive.NewObjectID", RANDOM),
    ("go.mongodb.org/mongo-driver/v2/bson.NewObjectID", RANDOM),
    ("crypto/rand.Read", RANDOM),
    ("crypto/rand.Int", RANDOM),
    ("crypto/rand.Prime", RANDOM),
    ("crypto/rand.Text", RANDOM),
    ("math/rand.New*", None),
    ("math/rand.Seed", None),
    ("math/rand.*", RANDOM),
    ("math/rand/v2.New*", None),
    ("math/rand/v2.*", RANDOM),
    ("time.Now", CLOCK),
    ("time.Since", CLOCK),
    ("time.Until", CLOCK),
    ("cloud.google.com/go/*.New*Client*", CLIENT),
    ("cloud.google.com/go/*.Dial*", CLIENT),
    ("firebase.google.com/go*.NewApp", CLIENT),
    ("google.golang.org/api/*.NewService", CLIENT),
    ("google.golang.org/grpc.Dial*", CLIENT),
    ("google.golang.org/grpc.NewClient", CLIENT),
    ("database/sql.Open*", CLIENT),
    ("github.com/jmoiron/sqlx.Open", CLIENT),
    ("github.com/jmoiron/sqlx.*Connect*", CLIENT),
    ("gorm.io/gorm.Open", CLIENT),
    ("github.com/jackc/pgx*.Connect*", CLIENT),
    ("github.com/jackc/pgx*/pgxpool.New*", CLIENT),
    ("github.com/redis/go-redis*.New*Client", CLIENT),
    ("github.com/go-redis/redis*.New*Client", CLIENT),
    ("github.com/gomodule/redigo/redis.Dial*", CLIENT),
    ("go.mongodb.org/mongo-driver/*mongo.Connect", CLIENT),
    ("go.mongodb.org/mongo-driver/*mongo.NewClient", CLIENT),
    ("github.com/segmentio/kafka-go.Dial*", CLIENT),
    ("github.com/segmentio/kafka-go.New*", CLIENT),
    ("github.com/nats-io/nats.go.Connect", CLIENT),
    ("github.com/rabbitmq/amqp091-go.Dial*", CLIENT),
    ("github.com/elastic/go-elasticsearch*.New*Client", CLIENT),
    ("net.Dial*", CLIENT),
    ("net/rpc.Dial*", CLIENT),
    ("crypto/tls.Dial*", CLIENT),
];

pub(super) fn calls(tree: &Tree, text: &str) -> Vec<Call> {
    let mut file = GoFile { page: Page::new(text), names: HashMap::new(), dots: Vec::new() };
    let declarations = children(tree.root_node());
    declarations.iter().filter(|node| node.kind() == "import_declaration").for_each(|node| file.import(*node));
    for declaration in declarations {
        match declaration.kind() {
            "var_declaration" => file.visit(declaration, 0),
            "function_declaration" if declaration.child_by_field_name("name").is_some_and(|name| file.page.text(name) == "init") => {
                let outside = file.names.clone();
                if let Some(body) = declaration.child_by_field_name("body") {
                    file.visit(body, 0);
                }
                file.names = outside;
            }
            _ => {}
        }
    }
    file.page.done()
}

struct GoFile<'a> {
    page: Page<'a>,
    /// The package that a name stands for; `None`: something else.
    names: HashMap<&'a str, Option<&'a str>>,
    /// Packages of which all names were imported.
    dots: Vec<&'a str>,
}

impl<'a> GoFile<'a> {
    fn import(&mut self, declaration: Node<'_>) {
        let mut open = vec![declaration];
        while let Some(node) = open.pop() {
            if node.kind() != "import_spec" {
                open.extend(children(node));
                continue;
            }
            let Some(path) = node.child_by_field_name("path").map(|path| self.page.text(path).trim_matches(['"', '`'])) else { continue };
            match node.child_by_field_name("name") {
                None => {
                    for name in package_names(path) {
                        self.names.insert(name, Some(path));
                    }
                }
                Some(name) if name.kind() == "dot" => self.dots.push(path),
                Some(name) => {
                    self.names.insert(self.page.text(name), Some(path));
                }
            }
        }
    }

    fn visit(&mut self, node: Node<'_>, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        match node.kind() {
            "func_literal" => {}
            "short_var_declaration" | "var_spec" | "range_clause" => {
                self.visit_children(node, depth);
                let is_spec = node.kind() == "var_spec";
                let names: Vec<_> = if is_spec {
                    node.children_by_field_name("name", &mut node.walk()).collect()
                } else {
                    node.child_by_field_name("left").map_or_else(Vec::new, children)
                };
                for name in names {
                    self.names.insert(self.page.text(name), None);
                }
            }
            "call_expression" => {
                self.visit_children(node, depth);
                let Some(callee) = node.child_by_field_name("function") else { return };
                // func() { … }() runs where it stands.
                let literal = if callee.kind() == "parenthesized_expression" { callee.named_child(0) } else { Some(callee) };
                if let Some(body) = literal.filter(|literal| literal.kind() == "func_literal").and_then(|literal| literal.child_by_field_name("body")) {
                    let outside = self.names.clone();
                    self.visit(body, depth + 1);
                    self.names = outside;
                }
                let end = arguments(node.child_by_field_name("arguments"));
                let paths: Vec<String> = self.paths(callee).iter().map(|path| format!("{path}{end}")).collect();
                self.page.note(RULES, node, callee.byte_range(), &paths);
            }
            _ => self.visit_children(node, depth),
        }
    }

    fn visit_children(&mut self, node: Node<'_>, depth: usize) {
        children(node).into_iter().for_each(|child| self.visit(child, depth + 1));
    }

    fn paths(&self, callee: Node<'_>) -> Vec<String> {
        let name = |node: Node<'_>| self.page.text(node);
        match callee.kind() {
            "selector_expression" => {
                let package = callee.child_by_field_name("operand").filter(|operand| operand.kind() == "identifier");
                let package = package.and_then(|package| self.names.get(name(package)).copied().flatten());
                package.zip(callee.child_by_field_name("field")).map(|(package, field)| format!("{package}.{}", name(field))).into_iter().collect()
            }
            "identifier" if !self.names.contains_key(name(callee)) => self.dots.iter().map(|package| format!("{package}.{}", name(callee))).collect(),
            _ => Vec::new(),
        }
    }
}

/// What a package is called when its import says nothing: the last part of its path, without what is often around it.
fn package_names(path: &str) -> Vec<&str> {
    let is_version = |part: &&str| part.strip_prefix('v').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()));
    let parts: Vec<&str> = path.split('/').collect();
    let last = parts.iter().rev().find(|part| parts.len() == 1 || !is_version(part)).copied().unwrap_or(path);
    let last = match last.rsplit_once('.') {
        Some((name, end)) if is_version(&end) || end == "go" => name,
        Some(("go", name)) => name,
        _ => last,
    };
    let plain = last.strip_prefix("go-").or_else(|| last.strip_suffix("-go")).unwrap_or(last);
    if plain == last { vec![last] } else { vec![last, plain] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packages_name_is_the_last_part_of_its_path() {
        for (path, name) in [
            ("time", "time"),
            ("math/rand/v2", "rand"),
            ("github.com/redis/go-redis/v9", "redis"),
            ("gopkg.in/yaml.v3", "yaml"),
            ("github.com/nats-io/nats.go", "nats"),
            ("github.com/satori/go.uuid", "uuid"),
            ("github.com/segmentio/kafka-go", "kafka"),
            ("v2", "v2"),
        ] {
            assert!(package_names(path).contains(&name), "{path}: {:?}", package_names(path));
        }
    }
}
