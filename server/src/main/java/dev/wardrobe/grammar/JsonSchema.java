package dev.wardrobe.grammar;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import java.math.BigDecimal;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * A JSON schema (draft 2020-12's commonly used part) on its way to rules.
 *
 * <p>What a value must satisfy at some place is a set of subschemas, those that {@code $ref},
 * {@code allOf} and the places above lead to; alternatives make several sets of it. A set has one
 * rule, known by its subschemas' pointers, so that recursion comes to an end. Nothing is left out:
 * a keyword that cannot be held exactly is refused.
 */
final class JsonSchema {
  static final int LONGEST = 1 << 19;
  private static final int DEEPEST = 200;
  private static final int MOST_ALTERNATIVES = 2_000;
  private static final int MOST_PATTERNS = 8;

  /** Work of copying an entry of a map, so that what may be copied fits into memory. */
  private static final long COPY = 16;

  private static final ObjectMapper MAPPER =
      JsonMapper.builder(
              JsonFactory.builder()
                  .streamReadConstraints(
                      StreamReadConstraints.builder()
                          .maxNestingDepth(DEEPEST)
                          .maxNumberLength(200)
                          .build())
                  .build())
          .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          .enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS)
          .build();

  private static final Set<String> TYPES =
      new LinkedHashSet<>(
          List.of("object", "array", "string", "number", "integer", "boolean", "null"));

  /** A subschema and its JSON pointer. */
  record Place(String pointer, JsonNode schema) {
    Place at(String key) {
      return new Place(pointer + "/" + key.replace("~", "~0").replace("/", "~1"), schema.path(key));
    }

    Place at(int index) {
      return new Place(pointer + "/" + index, schema.path(index));
    }

    boolean has(String key) {
      return schema.has(key);
    }
  }

  /** A {@code oneOf} whose two alternatives must exclude each other: their rule derives nothing. */
  private record Exclusion(Place oneOf, int one, int other, int rule) {}

  /** A set of subschemas whose alternatives are settled: by pointer. */
  private record Conjunction(Map<String, Place> places) {
    String key() {
      return String.join("\n", new TreeSet<>(places.keySet()));
    }

    List<Place> with(String keyword) {
      return places.values().stream().filter(place -> place.has(keyword)).toList();
    }
  }

  private final JsonNode root;
  private final JsonText json;
  private final Rules rules;
  private final Budget budget;
  private final boolean closed;
  private final SchemaKeywords keywords;

  /** By the pointers of what was asked for. */
  private final Map<String, Integer> unions = new HashMap<>();

  /** By the pointers of a conjunction, settled. */
  private final Map<String, Integer> conjunctions = new HashMap<>();

  private final Deque<Task> pending = new ArrayDeque<>();
  private final List<Exclusion> exclusions = new ArrayList<>();
  private final Set<String> excluded = new HashSet<>();

  /** Why something cannot be, in the order in which that was found. */
  private final List<String> objections = new ArrayList<>();

  /** Work that is put off, so that the depth of a schema is not one of calls. */
  private interface Task {
    void run() throws GrammarException;
  }

  private JsonSchema(JsonNode root, JsonText json, boolean closed) {
    this.root = root;
    this.json = json;
    this.rules = json.rules;
    this.budget = json.rules.budget;
    this.closed = closed;
    keywords = new SchemaKeywords();
  }

  /**
   * The rule of a schema.
   *
   * @param closed whether objects have no other properties than those that are named, where the
   *     schema does not say
   * @throws GrammarException if it is no schema, uses what is not supported, or allows nothing
   */
  static int compile(String text, JsonText json, boolean closed) throws GrammarException {
    if (text.length() > LONGEST) {
      throw new GrammarException(
          "a schema of %d characters; at most %d are supported".formatted(text.length(), LONGEST));
    }
    JsonNode root;
    try {
      root = MAPPER.readTree(text);
    } catch (JsonProcessingException e) {
      String place =
          e.getLocation() == null
              ? ""
              : " at line %d, column %d"
                  .formatted(e.getLocation().getLineNr(), e.getLocation().getColumnNr());
      throw new GrammarException("not valid JSON" + place + ": " + e.getOriginalMessage(), e);
    }
    return new JsonSchema(root, json, closed).compile();
  }

  private int compile() throws GrammarException {
    int rule = rule(List.of(new Place("", root)));
    drain();
    checkExclusions();
    if (!rules.productive()[rule]) {
      throw new GrammarException(
          "no value satisfies the schema"
              + (objections.isEmpty()
                  ? ": it asks for itself again and again"
                  : ": " + objections.getFirst()));
    }
    return rule;
  }

  private void drain() throws GrammarException {
    for (Task next = pending.poll(); next != null; next = pending.poll()) {
      next.run();
    }
  }

  private void checkExclusions() throws GrammarException {
    boolean[] productive = rules.productive();
    for (Exclusion exclusion : exclusions) {
      if (productive[exclusion.rule()]) {
        throw SchemaKeywords.error(
            exclusion.oneOf(),
            ("alternatives %d and %d are not known to exclude each other, and that exactly one"
                    + " holds cannot be held to; use anyOf, or give them a required property with"
                    + " different constants")
                .formatted(exclusion.one(), exclusion.other()));
      }
    }
  }

  private void object(Place place, String what) {
    if (objections.size() < 100) {
      objections.add(
          (place.pointer().isEmpty() ? "at the root" : "at " + place.pointer()) + ": " + what);
    }
  }

  // ---------------------------------------------------------------- conjunctions

  /** What calls the rule of all of {@code places} together. */
  private Expr call(List<Place> places) throws GrammarException {
    boolean anything = true;
    for (Place place : places) {
      JsonNode schema = place.schema();
      anything &= schema.isBoolean() ? schema.asBoolean() : schema.isObject() && schema.isEmpty();
      if (schema.isBoolean() && !schema.asBoolean()) {
        object(place, "false allows nothing");
        return Expr.NOTHING;
      }
    }
    return anything ? json.value() : new Expr.Call(rule(places));
  }

  private int rule(List<Place> places) throws GrammarException {
    Map<String, Place> distinct = new LinkedHashMap<>();
    places.forEach(place -> distinct.put(place.pointer(), place));
    String key = String.join("\n", new TreeSet<>(distinct.keySet()));
    Integer known = unions.get(key);
    if (known != null) {
      return known;
    }
    budget.work(key.length());
    int rule = rules.reserve();
    unions.put(key, rule);
    pending.add(
        () -> {
          List<Expr> options = new ArrayList<>();
          for (Conjunction each : alternatives(Map.of(), List.copyOf(distinct.values()))) {
            options.add(new Expr.Call(conjunctionRule(each)));
          }
          rules.define(rule, new Expr.Choice(options));
        });
    return rule;
  }

  private int conjunctionRule(Conjunction conjunction) throws GrammarException {
    String key = conjunction.key();
    Integer known = conjunctions.get(key);
    if (known != null) {
      return known;
    }
    budget.work(key.length());
    int rule = rules.reserve();
    conjunctions.put(key, rule);
    pending.add(() -> rules.define(rule, body(conjunction)));
    return rule;
  }

  /**
   * A choice that is not made yet.
   *
   * @param path what led to it, which no alternative may lead to again
   */
  private record Pending(
      Place keyword, List<Place> alternatives, boolean exclusive, Set<String> path) {}

  private List<Conjunction> alternatives(Map<String, Place> base, List<Place> more)
      throws GrammarException {
    List<Conjunction> settled = new ArrayList<>();
    Map<String, Place> places = new LinkedHashMap<>(base);
    Deque<Pending> choices = new ArrayDeque<>();
    boolean possible = true;
    for (Place place : more) {
      possible &= add(place, new HashSet<>(), places, choices);
    }
    if (possible) {
      settle(places, choices, settled);
    }
    return settled;
  }

  private void settle(Map<String, Place> places, Deque<Pending> choices, List<Conjunction> settled)
      throws GrammarException {
    budget.work(COPY * (places.size() + choices.size() + 1L));
    if (choices.isEmpty()) {
      settled.add(new Conjunction(places));
      if (settled.size() > MOST_ALTERNATIVES) {
        throw new GrammarException(
            "anyOf and oneOf in one another make more than %d alternatives at one place"
                .formatted(MOST_ALTERNATIVES));
      }
      return;
    }
    Deque<Pending> others = new ArrayDeque<>(choices);
    Pending choice = others.removeFirst();
    for (Place alternative : choice.alternatives()) {
      Map<String, Place> with = new LinkedHashMap<>(places);
      Deque<Pending> left = new ArrayDeque<>(others);
      if (add(alternative, new HashSet<>(choice.path()), with, left)) {
        settle(with, left, settled);
      }
    }
    if (choice.exclusive()) {
      exclude(choice, places);
    }
  }

  /** Notes that two alternatives must not hold at once, beside what else is asked for here. */
  private void exclude(Pending choice, Map<String, Place> places) throws GrammarException {
    String context = choice.keyword().pointer() + "\n" + new Conjunction(places).key();
    budget.work(context.length());
    if (!excluded.add(context)) {
      return;
    }
    for (int i = 0; i < choice.alternatives().size(); i++) {
      for (int j = i + 1; j < choice.alternatives().size(); j++) {
        int rule = rules.reserve();
        List<Place> both = List.of(choice.alternatives().get(i), choice.alternatives().get(j));
        exclusions.add(new Exclusion(choice.keyword(), i, j, rule));
        pending.add(
            () -> {
              List<Expr> options = new ArrayList<>();
              for (Conjunction each : alternatives(places, both)) {
                options.add(new Expr.Call(conjunctionRule(each)));
              }
              rules.define(rule, new Expr.Choice(options));
            });
      }
    }
  }

  /** Adds a subschema and all that it refers to; false if it allows nothing. */
  private boolean add(
      Place place, Set<String> path, Map<String, Place> places, Deque<Pending> choices)
      throws GrammarException {
    if (place.schema().isBoolean()) {
      if (!place.schema().asBoolean()) {
        object(place, "false allows nothing");
      }
      return place.schema().asBoolean();
    }
    if (!path.add(place.pointer()) || path.size() > 1_000) {
      throw SchemaKeywords.error(place, "refers to itself, with nothing in between");
    }
    budget.work(COPY + place.pointer().length());
    keywords.check(place);
    boolean possible = true;
    if (places.putIfAbsent(place.pointer(), place) == null) {
      if (place.has("$ref")) {
        possible &= add(resolve(place), path, places, choices);
      }
      Place all = place.at("allOf");
      for (int i = 0; i < all.schema().size(); i++) {
        possible &= add(all.at(i), path, places, choices);
      }
      for (String keyword : List.of("anyOf", "oneOf")) {
        Place any = place.at(keyword);
        if (place.has(keyword)) {
          List<Place> alternatives = new ArrayList<>();
          budget.work(any.schema().size() * (COPY + any.pointer().length()));
          for (int i = 0; i < any.schema().size(); i++) {
            alternatives.add(any.at(i));
          }
          choices.add(new Pending(any, alternatives, keyword.equals("oneOf"), Set.copyOf(path)));
        }
      }
    }
    path.remove(place.pointer());
    return possible;
  }

  private Place resolve(Place place) throws GrammarException {
    String reference = place.schema().path("$ref").asText();
    budget.work(reference.length());
    Place at = new Place("", root);
    if (!reference.equals("#") && !reference.startsWith("#/")) {
      throw SchemaKeywords.error(
          place.at("$ref"),
          "'%s' is not supported; expected # or #/ and a JSON pointer in this schema"
              .formatted(reference));
    }
    String pointer;
    try {
      pointer =
          URLDecoder.decode(reference.substring(1).replace("+", "%2B"), StandardCharsets.UTF_8);
    } catch (IllegalArgumentException e) {
      throw SchemaKeywords.error(place.at("$ref"), "'%s' is not a URI".formatted(reference));
    }
    if (!pointer.isEmpty()) {
      for (String part : pointer.substring(1).split("/", -1)) {
        if (at.schema().isMissingNode()) {
          break;
        }
        String key = part.replace("~1", "/").replace("~0", "~");
        boolean index = at.schema().isArray() && key.matches("0|[1-9]\\d{0,6}");
        at = index ? at.at(Integer.parseInt(key)) : at.at(key);
      }
    }
    if (at.schema().isMissingNode()) {
      throw SchemaKeywords.error(
          place.at("$ref"), "there is no '%s' in the schema".formatted(reference));
    }
    return at;
  }

  // ---------------------------------------------------------------- values

  /** The values that satisfy a conjunction, as far as alternatives do not say more. */
  private Expr body(Conjunction set) throws GrammarException {
    List<Place> enums = new ArrayList<>(set.with("const"));
    enums.addAll(set.with("enum"));
    if (!enums.isEmpty()) {
      return constants(set, enums.getFirst());
    }
    Set<String> types = types(set);
    List<Expr> options = new ArrayList<>();
    for (String type : types) {
      options.add(
          switch (type) {
            case "null" -> Expr.text("null");
            case "boolean" -> Expr.choice(Expr.text("true"), Expr.text("false"));
            case "integer", "number" -> number(set, type.equals("integer"));
            case "string" -> string(set);
            case "array" -> array(set);
            default -> object(set);
          });
    }
    return new Expr.Choice(options);
  }

  private Set<String> types(Conjunction set) {
    Set<String> types = new LinkedHashSet<>(TYPES);
    types.remove("integer");
    for (Place place : set.with("type")) {
      Set<String> allowed = SchemaKeywords.types(place.schema().path("type"));
      if (types.contains("number") && !allowed.contains("number") && allowed.contains("integer")) {
        types.add("integer");
      }
      if (allowed.contains("number")) {
        allowed.add("integer");
      }
      types.retainAll(allowed);
      if (types.isEmpty()) {
        object(place.at("type"), "this type is none of those that are asked for beside it");
      }
    }
    if (types.contains("number")) {
      types.remove("integer");
    }
    return types;
  }

  private Expr constants(Conjunction set, Place from) throws GrammarException {
    List<JsonNode> values = new ArrayList<>();
    if (from.has("const")) {
      values.add(from.schema().path("const"));
    } else {
      from.schema().path("enum").forEach(values::add);
    }
    SchemaCheck check = new SchemaCheck(this::resolve, budget);
    List<Expr> options = new ArrayList<>();
    for (JsonNode value : values) {
      boolean valid = true;
      for (Place place : set.places().values()) {
        valid = valid && check.own(place, value);
      }
      if (valid) {
        options.add(json.literal(value));
      }
    }
    if (options.isEmpty()) {
      object(
          from.at(from.has("const") ? "const" : "enum"),
          "no value of it satisfies what else is asked for");
    }
    return new Expr.Choice(options);
  }

  private Expr number(Conjunction set, boolean integer) throws GrammarException {
    BigDecimal min = null;
    BigDecimal max = null;
    BigDecimal step = null;
    boolean minExcluded = false;
    boolean maxExcluded = false;
    Place from = null;
    for (Place place : set.places().values()) {
      for (String keyword : List.of("minimum", "exclusiveMinimum")) {
        if (place.has(keyword)) {
          from = place.at(keyword);
          BigDecimal bound = from.schema().decimalValue();
          boolean excluded = keyword.startsWith("exclusive");
          int order = min == null ? 1 : bound.compareTo(min);
          if (order > 0 || (order == 0 && excluded)) {
            min = bound;
            minExcluded = excluded;
          }
        }
      }
      for (String keyword : List.of("maximum", "exclusiveMaximum")) {
        if (place.has(keyword)) {
          from = place.at(keyword);
          BigDecimal bound = from.schema().decimalValue();
          boolean excluded = keyword.startsWith("exclusive");
          int order = max == null ? -1 : bound.compareTo(max);
          if (order < 0 || (order == 0 && excluded)) {
            max = bound;
            maxExcluded = excluded;
          }
        }
      }
      if (place.has("multipleOf")) {
        from = place.at("multipleOf");
        BigDecimal other = from.schema().decimalValue();
        step = step == null ? other : SchemaKeywords.commonMultiple(step, other);
      }
    }
    if (from == null) {
      return integer ? json.integer() : json.number();
    }
    try {
      Expr numbers = new Numbers(integer, min, minExcluded, max, maxExcluded, step).expr(budget);
      if (((Expr.Choice) numbers).options().isEmpty()) {
        object(from, "no number is within the bounds");
      }
      return numbers;
    } catch (GrammarException e) {
      throw SchemaKeywords.error(from, e.getMessage());
    }
  }

  private Expr string(Conjunction set) throws GrammarException {
    Expr quote = Expr.text("\"");
    int min = largest(set, "minLength");
    int max = smallest(set, "maxLength");
    if (max != Expr.UNBOUNDED && min > max) {
      object(set.with("minLength").getFirst().at("minLength"), min + " is over maxLength " + max);
      return Expr.NOTHING;
    }
    Automaton content = content(set, min, max);
    if (content != null) {
      return content.isEmpty()
          ? Expr.NOTHING
          : Expr.sequence(quote, new Expr.Language(content), quote);
    }
    if (min == 0 && max == Expr.UNBOUNDED) {
      return json.string();
    }
    return Expr.sequence(quote, rules.repeat(json.character, min, max), quote);
  }

  /** What a string may hold, in quotes, by patterns and formats; null if there are none. */
  private @Nullable Automaton content(Conjunction set, int min, int max) throws GrammarException {
    Automaton content = null;
    Place last = null;
    for (Place place : set.places().values()) {
      for (String keyword : List.of("pattern", "format")) {
        if (!place.has(keyword)) {
          continue;
        }
        last = place.at(keyword);
        String text = last.schema().asText();
        try {
          Automaton one =
              keyword.equals("pattern")
                  ? Regex.within(text, Spelling.JSON, budget)
                  : Formats.of(text, budget);
          content = content == null ? one : content.and(one, budget);
        } catch (GrammarException e) {
          throw SchemaKeywords.error(last, e.getMessage());
        }
      }
    }
    if (content == null || last == null) {
      return null;
    }
    if (min > 0 || max != Expr.UNBOUNDED) {
      Expr lengths = Expr.repeat(Spelling.JSON.of(CodePoints.ALL), min, max);
      content = content.and(Automaton.of(lengths, budget), budget);
    }
    if (content.isEmpty()) {
      object(last, "no string satisfies it and what else is asked for");
    }
    return content;
  }

  private static int largest(Conjunction set, String keyword) {
    int largest = 0;
    for (Place place : set.with(keyword)) {
      largest = Math.max(largest, SchemaKeywords.count(place.schema().path(keyword)));
    }
    return largest;
  }

  private static int smallest(Conjunction set, String keyword) {
    int smallest = Expr.UNBOUNDED;
    for (Place place : set.with(keyword)) {
      int count = SchemaKeywords.count(place.schema().path(keyword));
      smallest = smallest == Expr.UNBOUNDED ? count : Math.min(smallest, count);
    }
    return smallest;
  }

  private Expr array(Conjunction set) throws GrammarException {
    int min = largest(set, "minItems");
    int max = smallest(set, "maxItems");
    for (Place place : set.with("uniqueItems")) {
      if (place.schema().path("uniqueItems").asBoolean() && (max == Expr.UNBOUNDED || max > 1)) {
        throw SchemaKeywords.error(
            place.at("uniqueItems"), "that items differ cannot be held to; leave it out");
      }
    }
    int prefix = 0;
    for (Place place : set.with("prefixItems")) {
      prefix = Math.max(prefix, place.schema().path("prefixItems").size());
    }
    if (max != Expr.UNBOUNDED && min > max) {
      object(set.with("minItems").getFirst().at("minItems"), min + " is over maxItems " + max);
      return Expr.NOTHING;
    }
    if (min == 0 && max == Expr.UNBOUNDED && prefix == 0 && set.with("items").isEmpty()) {
      return json.array();
    }
    // State 2i: i items are there. State 2i + 1: the item that comes now is the ith.
    Expr comma = Expr.sequence(Expr.text(","), json.gap);
    Expr close = Expr.sequence(json.gap, Expr.text("]"));
    List<Expr.Edge> edges = new ArrayList<>();
    int written = max == Expr.UNBOUNDED ? prefix : Math.min(prefix, max);
    int last = written + 1;
    for (int i = 0; i < written; i++) {
      Expr item = call(items(set, i));
      edges.add(new Expr.Edge(i, Expr.sequence(i == 0 ? json.gap : comma, item), i + 1));
      if (i >= min) {
        edges.add(new Expr.Edge(i, close, last));
      }
    }
    Expr item = call(items(set, prefix));
    int few = Math.max(0, min - written);
    int many = max == Expr.UNBOUNDED ? max : max - written;
    Expr rest;
    if (written > 0) {
      rest = many == 0 ? Expr.EMPTY : rules.repeat(more(comma, item), few, many);
    } else {
      Expr others =
          many == 1
              ? Expr.EMPTY
              : rules.repeat(
                  more(comma, item),
                  Math.max(0, few - 1),
                  many == Expr.UNBOUNDED ? many : Math.max(0, many - 1));
      Expr some = Expr.sequence(json.gap, item, others);
      rest = many == 0 ? Expr.EMPTY : few == 0 ? Expr.optional(some) : some;
    }
    edges.add(new Expr.Edge(written, Expr.sequence(rest, close), last));
    return Expr.sequence(Expr.text("["), new Expr.Graph(last + 1, edges));
  }

  private int more(Expr comma, Expr item) throws GrammarException {
    return rules.add(Expr.sequence(comma, item));
  }

  /** What the item at {@code index} must satisfy. */
  private List<Place> items(Conjunction set, int index) throws GrammarException {
    List<Place> items = new ArrayList<>();
    for (Place place : set.places().values()) {
      budget.work(1 + place.pointer().length());
      Place prefix = place.at("prefixItems");
      if (index < prefix.schema().size()) {
        items.add(prefix.at(index));
      } else if (place.has("items")) {
        items.add(place.at("items"));
      }
    }
    return items;
  }

  // ---------------------------------------------------------------- objects

  private Expr object(Conjunction set) throws GrammarException {
    Set<String> required = new LinkedHashSet<>();
    Set<String> named = new LinkedHashSet<>();
    for (Place place : set.places().values()) {
      place.schema().path("properties").fieldNames().forEachRemaining(named::add);
      place.schema().path("required").forEach(name -> required.add(name.asText()));
    }
    named.addAll(required);
    int min = largest(set, "minProperties");
    int max = smallest(set, "maxProperties");
    List<Place> patterns = patterns(set);
    boolean open =
        !closed
            || named.isEmpty()
            || !set.with("additionalProperties").isEmpty()
            || !patterns.isEmpty();
    Automaton names = names(set);
    List<JsonText.Member> members = new ArrayList<>();
    for (String name : named) {
      Expr value =
          names != null && !names.matches(SchemaCheck.spelled(name))
              ? Expr.NOTHING
              : call(property(set, name, patterns));
      Expr written = json.pair(JsonText.key(name), value);
      members.add(new JsonText.Member(written, required.contains(name), false, true));
    }
    List<Expr> extras = open ? extras(set, named, names, patterns) : List.of();
    if (extras.isEmpty()) {
      max = max == Expr.UNBOUNDED || max >= members.size() ? Expr.UNBOUNDED : max;
    } else if (min > Math.max(1, required.size()) && max != Expr.UNBOUNDED) {
      throw SchemaKeywords.error(
          set.with("minProperties").getFirst().at("minProperties"),
          "beside maxProperties and properties that are not named, only 0 and 1 are supported,"
              + " since such names may repeat");
    }
    if (min <= required.size()) {
      min = 0;
    }
    if (max != Expr.UNBOUNDED && required.size() > max) {
      object(
          set.with("maxProperties").getFirst().at("maxProperties"),
          "%d properties are required".formatted(required.size()));
      return Expr.NOTHING;
    }
    if (!extras.isEmpty()) {
      // Such names may repeat, so that only the first one is sure to be one more property; where
      // there is a most, each counts.
      Expr any = Expr.choice(extras);
      if (max == Expr.UNBOUNDED) {
        members.add(new JsonText.Member(any, false, false, true));
      }
      members.add(new JsonText.Member(any, false, true, max != Expr.UNBOUNDED));
    }
    return json.object(members, min, max);
  }

  private List<Place> patterns(Conjunction set) throws GrammarException {
    List<Place> patterns = new ArrayList<>();
    for (Place place : set.with("patternProperties")) {
      Place all = place.at("patternProperties");
      all.schema().fieldNames().forEachRemaining(pattern -> patterns.add(all.at(pattern)));
      if (patterns.size() > MOST_PATTERNS) {
        throw SchemaKeywords.error(
            all, "more than %d patterns at one place are not supported".formatted(MOST_PATTERNS));
      }
    }
    return patterns;
  }

  private Automaton pattern(Place owner, String pattern) throws GrammarException {
    try {
      return Regex.within(pattern, Spelling.JSON, budget);
    } catch (GrammarException e) {
      throw SchemaKeywords.error(owner.at("patternProperties").at(pattern), e.getMessage());
    }
  }

  /** What a property's value must satisfy. */
  private List<Place> property(Conjunction set, String name, List<Place> patterns)
      throws GrammarException {
    List<Place> all = new ArrayList<>();
    for (Place place : set.places().values()) {
      budget.work(1 + place.pointer().length());
      boolean known = place.schema().path("properties").has(name);
      if (known) {
        all.add(place.at("properties").at(name));
      }
      if (!patterns.isEmpty()) {
        for (var each : place.schema().path("patternProperties").properties()) {
          if (pattern(place, each.getKey()).matches(SchemaCheck.spelled(name))) {
            known = true;
            all.add(place.at("patternProperties").at(each.getKey()));
          }
        }
      }
      if (!known && place.has("additionalProperties")) {
        all.add(place.at("additionalProperties"));
      }
    }
    return all;
  }

  /** Names that are not in those that are listed, divided by the patterns that they match. */
  private record Names(Automaton names, Set<String> matched) {}

  /** Members whose names are free. */
  private List<Expr> extras(
      Conjunction set, Set<String> listed, @Nullable Automaton allowed, List<Place> patterns)
      throws GrammarException {
    List<Expr> extras = new ArrayList<>();
    Expr quote = Expr.text("\"");
    if (listed.isEmpty() && allowed == null && patterns.isEmpty()) {
      Expr value = call(extra(set, Set.of()));
      if (!value.equals(Expr.NOTHING)) {
        extras.add(json.pair(json.string(), value));
      }
      return extras;
    }
    boolean possible = false;
    for (Place place : patterns) {
      possible |= !isFalse(place.schema());
    }
    boolean others = true;
    for (Place place : set.with("additionalProperties")) {
      others &= !isFalse(place.schema().path("additionalProperties"));
    }
    if (!possible && !others) {
      return extras;
    }
    Automaton free = Automaton.of(Expr.any(Spelling.JSON.of(CodePoints.ALL)), budget);
    if (!listed.isEmpty()) {
      List<Expr> known = new ArrayList<>();
      listed.forEach(name -> known.add(Spelling.JSON.of(name)));
      free = free.minus(Automaton.of(new Expr.Choice(known), budget), budget);
    }
    if (allowed != null) {
      free = free.and(allowed, budget);
    }
    List<Names> cells = List.of(new Names(free, Set.of()));
    for (Place place : set.with("patternProperties")) {
      for (var each : place.schema().path("patternProperties").properties()) {
        Automaton pattern = pattern(place, each.getKey());
        List<Names> divided = new ArrayList<>();
        for (Names cell : cells) {
          Set<String> matched = new LinkedHashSet<>(cell.matched());
          matched.add(place.at("patternProperties").at(each.getKey()).pointer());
          divided.add(new Names(cell.names().and(pattern, budget), matched));
          divided.add(new Names(cell.names().minus(pattern, budget), cell.matched()));
        }
        cells = divided.stream().filter(cell -> !cell.names().isEmpty()).toList();
      }
    }
    for (Names cell : cells) {
      Expr value = call(extra(set, cell.matched()));
      if (!value.equals(Expr.NOTHING)) {
        Expr key = Expr.sequence(quote, new Expr.Language(cell.names()), quote);
        extras.add(json.pair(key, value));
      }
    }
    return extras;
  }

  private static boolean isFalse(JsonNode schema) {
    return schema.isBoolean() && !schema.asBoolean();
  }

  /** What the value of a property that is not named must satisfy. */
  private static List<Place> extra(Conjunction set, Set<String> matched) {
    List<Place> all = new ArrayList<>();
    for (Place place : set.places().values()) {
      boolean known = false;
      Place patterns = place.at("patternProperties");
      for (var each : patterns.schema().properties()) {
        Place pattern = patterns.at(each.getKey());
        if (matched.contains(pattern.pointer())) {
          known = true;
          all.add(pattern);
        }
      }
      if (!known && place.has("additionalProperties")) {
        all.add(place.at("additionalProperties"));
      }
    }
    return all;
  }

  /** The names that {@code propertyNames} allow, without quotes; null if it is not there. */
  private @Nullable Automaton names(Conjunction set) throws GrammarException {
    List<Place> places = new ArrayList<>();
    for (Place place : set.with("propertyNames")) {
      places.add(place.at("propertyNames"));
    }
    if (places.isEmpty()) {
      return null;
    }
    List<Expr> options = new ArrayList<>();
    for (Conjunction each : alternatives(Map.of(), places)) {
      options.add(new Expr.Language(name(each)));
    }
    return Automaton.of(new Expr.Choice(options), budget);
  }

  private Automaton name(Conjunction set) throws GrammarException {
    List<Place> enums = new ArrayList<>(set.with("const"));
    enums.addAll(set.with("enum"));
    if (!enums.isEmpty()) {
      Place from = enums.getFirst();
      List<JsonNode> values = new ArrayList<>();
      if (from.has("const")) {
        values.add(from.schema().path("const"));
      } else {
        from.schema().path("enum").forEach(values::add);
      }
      SchemaCheck check = new SchemaCheck(this::resolve, budget);
      List<Expr> options = new ArrayList<>();
      for (JsonNode value : values) {
        boolean valid = value.isTextual();
        for (Place place : set.places().values()) {
          valid = valid && check.own(place, value);
        }
        if (valid) {
          options.add(Spelling.JSON.of(value.textValue()));
        }
      }
      return Automaton.of(new Expr.Choice(options), budget);
    }
    if (!types(set).contains("string")) {
      return Automaton.of(Expr.NOTHING, budget);
    }
    int min = largest(set, "minLength");
    int max = smallest(set, "maxLength");
    if (max != Expr.UNBOUNDED && min > max) {
      return Automaton.of(Expr.NOTHING, budget);
    }
    Automaton content = content(set, min, max);
    return content != null
        ? content
        : Automaton.of(Expr.repeat(Spelling.JSON.of(CodePoints.ALL), min, max), budget);
  }
}
