//! Calls in the global scope of a module of Python: what `import` runs.

use std::collections::HashMap;

use tree_sitter::{Node, Tree};

use super::{Beside, Call, DEPTH_MAX, Kind, Page, arguments, children, rules::Rule};

const RANDOM: Option<Kind> = Some(Kind::Random);
const CLOCK: Option<Kind> = Some(Kind::Clock);
const CLIENT: Option<Kind> = Some(Kind::Client);

/// Generators themselves are not told: launchers renew those without a seed in each clone.
const RULES: &[Rule] = &[
    ("uuid.uuid1", RANDOM),
    ("uuid.uuid4", RANDOM),
    ("uuid.uuid6", RANDOM),
    ("uuid.uuid7", RANDOM),
    ("random.seed", None),
    ("random.getstate", None),
    ("random.setstate", None),
    ("random.Random", None),
    ("random.SystemRandom", None),
    ("random.*", RANDOM),
    ("random.Random().seed", None),
    ("random.Random().*", RANDOM),
    ("random.SystemRandom().*", RANDOM),
    ("secrets.compare_digest", None),
    ("secrets.SystemRandom", None),
    ("secrets.*", RANDOM),
    ("secrets.SystemRandom().*", RANDOM),
    ("os.urandom", RANDOM),
    ("os.getrandom", RANDOM),
    ("numpy.random.seed", None),
    ("numpy.random.get_state", None),
    ("numpy.random.set_state", None),
    ("numpy.random.default_rng", None),
    ("numpy.random.RandomState", None),
    ("numpy.random.Generator", None),
    ("numpy.random.SeedSequence", None),
    ("numpy.random.PCG64", None),
    ("numpy.random.MT19937", None),
    ("numpy.random.*", RANDOM),
    ("numpy.random.default_rng().*", RANDOM),
    ("numpy.random.RandomState().*", RANDOM),
    ("bson.ObjectId()", RANDOM),
    ("bson.objectid.ObjectId()", RANDOM),
    ("nanoid.generate", RANDOM),
    ("shortuuid.uuid()", RANDOM),
    ("ulid.new", RANDOM),
    ("ulid.ULID()", RANDOM),
    ("cryptography.fernet.Fernet.generate_key", RANDOM),
    ("Crypto.Random.get_random_bytes", RANDOM),
    ("time.time", CLOCK),
    ("time.time_ns", CLOCK),
    ("time.monotonic", CLOCK),
    ("time.monotonic_ns", CLOCK),
    ("time.perf_counter", CLOCK),
    ("time.perf_counter_ns", CLOCK),
    ("time.localtime()", CLOCK),
    ("time.gmtime()", CLOCK),
    ("time.ctime()", CLOCK),
    ("datetime.datetime.now", CLOCK),
    ("datetime.datetime.utcnow", CLOCK),
    ("datetime.datetime.today", CLOCK),
    ("datetime.date.today", CLOCK),
    ("django.utils.timezone.now", CLOCK),
    ("pendulum.now", CLOCK),
    ("arrow.now", CLOCK),
    ("arrow.utcnow", CLOCK),
    ("google.cloud.*Client", CLIENT),
    ("google.cloud.*Client.from_service_account_*", CLIENT),
    ("google.cloud.sql.connector.Connector", CLIENT),
    ("google.genai.Client", CLIENT),
    ("googleapiclient.discovery.build", CLIENT),
    ("firebase_admin.initialize_app", CLIENT),
    ("firebase_admin.firestore.client", CLIENT),
    ("redis.Redis", CLIENT),
    ("redis.StrictRedis", CLIENT),
    ("redis.ConnectionPool", CLIENT),
    ("redis.asyncio.Redis", CLIENT),
    ("redis.cluster.RedisCluster", CLIENT),
    ("redis.*from_url", CLIENT),
    ("psycopg.connect", CLIENT),
    ("psycopg.Connection.connect", CLIENT),
    ("psycopg2.connect", CLIENT),
    ("psycopg2.pool.*", CLIENT),
    ("psycopg_pool.*Pool", CLIENT),
    ("asyncpg.connect", CLIENT),
    ("asyncpg.create_pool", CLIENT),
    ("pg8000.*connect", CLIENT),
    ("pymysql.connect", CLIENT),
    ("pymysql.Connect", CLIENT),
    ("MySQLdb.connect", CLIENT),
    ("mysql.connector.connect", CLIENT),
    ("mysql.connector.pooling.MySQLConnectionPool", CLIENT),
    ("sqlite3.connect", CLIENT),
    ("pymongo.MongoClient", CLIENT),
    ("pymongo.mongo_client.MongoClient", CLIENT),
    ("motor.motor_asyncio.AsyncIOMotorClient", CLIENT),
    ("sqlalchemy.create_engine", CLIENT),
    ("sqlalchemy.engine.create_engine", CLIENT),
    ("sqlalchemy.ext.asyncio.create_async_engine", CLIENT),
    ("sqlmodel.create_engine", CLIENT),
    ("requests.Session", CLIENT),
    ("requests.session", CLIENT),
    ("requests.sessions.Session", CLIENT),
    ("httpx.Client", CLIENT),
    ("httpx.AsyncClient", CLIENT),
    ("aiohttp.ClientSession", CLIENT),
    ("urllib3.PoolManager", CLIENT),
    ("http.client.HTTP*Connection", CLIENT),
    ("boto3.client", CLIENT),
    ("boto3.resource", CLIENT),
    ("boto3.session.Session", CLIENT),
    ("boto3.Session", CLIENT),
    ("grpc.*channel", CLIENT),
    ("kafka.Kafka*", CLIENT),
    ("pika.*Connection", CLIENT),
    ("pymemcache.*Client", CLIENT),
    ("elasticsearch.*Elasticsearch", CLIENT),
    ("openai.OpenAI", CLIENT),
    ("openai.AsyncOpenAI", CLIENT),
    ("socket.socket", CLIENT),
    ("socket.create_connection", CLIENT),
];

pub(super) fn calls(tree: &Tree, text: &str, beside: &Beside) -> Vec<Call> {
    let mut module = Module { page: Page::new(text), beside, names: HashMap::new(), stars: Vec::new() };
    module.visit(tree.root_node(), 0);
    module.page.done()
}

struct Module<'a> {
    page: Page<'a>,
    beside: &'a Beside,
    /// What a name stands for at this point; `None`: something that is not known.
    names: HashMap<&'a str, Option<String>>,
    /// Modules of which all names were imported.
    stars: Vec<String>,
}

impl<'a> Module<'a> {
    fn visit(&mut self, node: Node<'_>, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        match node.kind() {
            "import_statement" => self.import(node),
            "import_from_statement" => self.import_from(node),
            "function_definition" => {
                self.defaults(node, depth);
                self.shadow(node.child_by_field_name("name"));
            }
            "lambda" => self.defaults(node, depth),
            "class_definition" => {
                let outside = self.names.clone();
                self.visit_children(node, depth);
                self.names = outside;
                self.shadow(node.child_by_field_name("name"));
            }
            "assignment" | "named_expression" => self.assignment(node, depth),
            "for_statement" | "for_in_clause" => {
                self.visit_children(node, depth);
                self.shadow(node.child_by_field_name("left"));
            }
            "if_statement" if self.is_main(node) => {
                let mut cursor = node.walk();
                let others: Vec<_> = node.children_by_field_name("alternative", &mut cursor).collect();
                others.into_iter().for_each(|other| self.visit(other, depth + 1));
            }
            "call" => {
                let callee = node.child_by_field_name("function");
                self.visit_children(node, depth);
                if let Some(callee) = callee {
                    let paths = self.paths(node, 0);
                    self.page.note(RULES, node, callee.byte_range(), &paths);
                }
            }
            _ => self.visit_children(node, depth),
        }
    }

    fn visit_children(&mut self, node: Node<'_>, depth: usize) {
        children(node).into_iter().for_each(|child| self.visit(child, depth + 1));
    }

    /// Values of parameters are made where a function is defined.
    fn defaults(&mut self, node: Node<'_>, depth: usize) {
        let parameters = node.child_by_field_name("parameters").map_or_else(Vec::new, children);
        parameters.into_iter().filter_map(|parameter| parameter.child_by_field_name("value")).for_each(|value| self.visit(value, depth + 1));
    }

    fn assignment(&mut self, node: Node<'_>, depth: usize) {
        let left = node.child_by_field_name("left").or_else(|| node.child_by_field_name("name"));
        let right = node.child_by_field_name("right").or_else(|| node.child_by_field_name("value"));
        let Some(right) = right else { return };
        self.visit(right, depth + 1);
        match left {
            Some(name) if name.kind() == "identifier" => {
                let path = self.paths(right, 0).into_iter().next();
                self.names.insert(self.page.text(name), path);
            }
            other => self.shadow(other),
        }
    }

    /// `if __name__ == "__main__":` is never true of a module that is imported.
    fn is_main(&self, node: Node<'_>) -> bool {
        let Some(condition) = node.child_by_field_name("condition").filter(|condition| condition.kind() == "comparison_operator") else { return false };
        let sides = children(condition);
        sides.len() == 2 && sides.iter().any(|side| self.page.text(*side) == "__name__") && self.page.text(condition).contains("__main__")
    }

    fn import(&mut self, node: Node<'_>) {
        for name in node.children_by_field_name("name", &mut node.walk()) {
            match (name.child_by_field_name("name"), name.child_by_field_name("alias")) {
                (Some(module), Some(alias)) => self.bind(alias, self.page.text(module).to_owned()),
                // The name is that of the outermost package.
                _ => {
                    if let Some(first) = children(name).first() {
                        self.bind(*first, self.page.text(*first).to_owned());
                    }
                }
            }
        }
    }

    fn import_from(&mut self, node: Node<'_>) {
        let Some(module) = node.child_by_field_name("module_name") else { return };
        let module = self.page.text(module).to_owned();
        for name in node.children_by_field_name("name", &mut node.walk()) {
            let (what, alias) = match (name.child_by_field_name("name"), name.child_by_field_name("alias")) {
                (Some(what), Some(alias)) => (what, alias),
                _ => (name, name),
            };
            self.bind(alias, format!("{module}.{}", self.page.text(what)));
        }
        if children(node).iter().any(|child| child.kind() == "wildcard_import") && !self.is_own(&module) {
            self.stars.push(module);
        }
    }

    fn bind(&mut self, name: Node<'_>, path: String) {
        let path = (!self.is_own(&path)).then_some(path);
        self.names.insert(self.page.text(name), path);
    }

    /// Whether a path leads to a module of the source.
    fn is_own(&self, path: &str) -> bool {
        path.starts_with('.') || path.split('.').next().is_some_and(|first| self.beside.top.contains(first))
    }

    /// From here on these names are something else.
    fn shadow(&mut self, names: Option<Node<'_>>) {
        let mut open: Vec<_> = names.into_iter().collect();
        while let Some(node) = open.pop() {
            match node.kind() {
                "identifier" => {
                    self.names.insert(self.page.text(node), None);
                }
                // Their own names are not bound by an assignment to a part of them.
                "attribute" | "subscript" => {}
                _ => open.extend(children(node)),
            }
        }
    }

    /// What an expression may stand for.
    fn paths(&self, node: Node<'_>, depth: usize) -> Vec<String> {
        if depth > DEPTH_MAX {
            return Vec::new();
        }
        let of = |part: Option<Node<'_>>, end: &dyn Fn(&str) -> String| -> Vec<String> {
            part.map_or_else(Vec::new, |part| self.paths(part, depth + 1)).iter().map(|path| end(path)).collect()
        };
        match node.kind() {
            "identifier" => match self.names.get(self.page.text(node)) {
                Some(path) => path.iter().cloned().collect(),
                None => self.stars.iter().map(|module| format!("{module}.{}", self.page.text(node))).collect(),
            },
            "attribute" => {
                let name = node.child_by_field_name("attribute").map_or("", |name| self.page.text(name));
                of(node.child_by_field_name("object"), &|path| format!("{path}.{name}"))
            }
            "call" => {
                let arguments = arguments(node.child_by_field_name("arguments"));
                of(node.child_by_field_name("function"), &|path| format!("{path}{arguments}"))
            }
            "parenthesized_expression" | "await" => of(node.named_child(0), &str::to_owned),
            _ => Vec::new(),
        }
    }
}
