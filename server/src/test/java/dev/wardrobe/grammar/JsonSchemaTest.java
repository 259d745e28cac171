package dev.wardrobe.grammar;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.networknt.schema.JsonSchemaFactory;
import com.networknt.schema.SchemaValidatorsConfig;
import com.networknt.schema.SpecVersion;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** What a schema lets through, judged by another validator. */
final class JsonSchemaTest {
  private static final ObjectMapper MAPPER =
      JsonMapper.builder()
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          .enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS)
          .disable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
          .build();

  private static final String[] SAMPLES = {
    "{'name': 'Zoë', 'tags': ['a', 'b'], 'n': -12.5e3, 'ok': true, 'x': null}",
    "{'a':{'b':[1,2,30]},'c':'\\u00e9\\n\\''}",
    "hello world 2024-02-29T12:30:00Z user@example.com 日本語 😀 0123456789 false",
  };

  private static final TokenTable TOKENS = Vocabularies.cut(new Random(7), 400, SAMPLES);

  private static com.networknt.schema.JsonSchema validator(String schema) {
    return JsonSchemaFactory.getInstance(SpecVersion.VersionFlag.V202012)
        .getSchema(schema, SchemaValidatorsConfig.builder().formatAssertionsEnabled(true).build());
  }

  /** Walks at random, and has what ended validated. */
  private static int validate(String quoted, int walks, int most, long seed) throws Exception {
    String schema = Vocabularies.unquoted(quoted);
    Grammar grammar = Vocabularies.schema(schema, TOKENS);
    com.networknt.schema.JsonSchema validator = validator(schema);
    int whole = 0;
    for (int i = 0; i < walks; i++) {
      Vocabularies.Walk walk = Vocabularies.walk(grammar, TOKENS, new Random(seed + i), most);
      if (!walk.whole()) {
        continue;
      }
      whole++;
      JsonNode document = MAPPER.readTree(walk.text());
      assertThat(validator.validate(document))
          .as("seed %d: %s by %s", seed + i, walk.text(), schema)
          .isEmpty();
    }
    return whole;
  }

  static List<String> schemas() {
    return List.of(
        "{'type':'object','properties':{'name':{'type':'string'},'age':{'type':'integer','minimum':0,'maximum':150},'email':{'type':'string','format':'uuid'}},'required':['name','age'],'additionalProperties':false}",
        "{'type':'object','properties':{'a':{'type':'boolean'},'b':{'type':'null'}},'required':['b','z'],'additionalProperties':{'type':'integer'}}",
        "{'type':'array','items':{'type':'number','exclusiveMinimum':-1.5,'maximum':2.25},'minItems':1,'maxItems':4}",
        "{'type':'array','prefixItems':[{'type':'string'},{'type':'integer'}],'items':false,'minItems':1}",
        "{'type':'array','prefixItems':[{'const':1},{'const':2}],'items':{'enum':['x']},'minItems':4,'maxItems':20}",
        "{'enum':[1,'two',null,{'three':[3,{}]},[],1.50,'q\\'uote']}",
        "{'const':{'a':[1,2],'b':'\\u00e9'}}",
        "{'type':'integer','multipleOf':7,'minimum':-100,'maximum':1000}",
        "{'type':'number','multipleOf':0.25,'minimum':-3,'exclusiveMaximum':4}",
        "{'type':'number','multipleOf':0.01,'minimum':0}",
        "{'type':'integer','exclusiveMinimum':9,'exclusiveMaximum':1001}",
        "{'type':'integer','minimum':-12345,'maximum':-17}",
        "{'type':'number','minimum':0.1,'maximum':0.3}",
        "{'type':'number','exclusiveMinimum':0,'exclusiveMaximum':1}",
        "{'type':'number','minimum':1e3}",
        "{'type':['string','null'],'maxLength':3}",
        "{'type':'string','minLength':3,'maxLength':40}",
        "{'type':'string','pattern':'^[A-Z]{2}-\\\\d+$'}",
        "{'type':'string','pattern':'\\\\d\\'x','maxLength':12}",
        "{'type':'string','pattern':'^(\\\\w| )+$','minLength':4,'maxLength':9}",
        "{'type':'string','format':'date'}",
        "{'type':'string','format':'date-time'}",
        "{'type':'string','format':'time'}",
        "{'type':'string','format':'duration'}",
        "{'type':'string','format':'email','pattern':'[.](com|org)$'}",
        "{'type':'string','format':'hostname'}",
        "{'type':'string','format':'ipv4'}",
        "{'type':'string','format':'ipv6'}",
        "{'type':'string','format':'uuid'}",
        "{'type':'string','format':'uri'}",
        "{'type':'string','format':'json-pointer'}",
        "{'anyOf':[{'type':'string','maxLength':2},{'type':'integer','maximum':5},{'type':'object','properties':{'k':{'const':1}},'required':['k']}]}",
        "{'oneOf':[{'type':'object','properties':{'kind':{'const':'cat'},'lives':{'type':'integer'}},'required':['kind']},{'type':'object','properties':{'kind':{'const':'dog'},'barks':{'type':'boolean'}},'required':['kind']}]}",
        "{'oneOf':[{'type':'integer','maximum':4},{'type':'integer','minimum':5},{'type':'string','pattern':'^a'},{'type':'string','pattern':'^b'}]}",
        "{'allOf':[{'type':'object','properties':{'a':{'type':'string'}},'required':['a']},{'properties':{'a':{'maxLength':2},'b':{'type':'integer'}},'required':['b']}],'maxProperties':2}",
        "{'type':'object','minProperties':1,'maxProperties':3,'additionalProperties':{'type':'integer'}}",
        "{'type':'object','properties':{'a':{},'b':{},'c':{},'d':{'type':'null'}},'minProperties':2,'maxProperties':3,'additionalProperties':false}",
        "{'type':'object','patternProperties':{'^n':{'type':'integer'},'s$':{'minimum':3}},'additionalProperties':{'type':'boolean'},'properties':{'nos':true}}",
        "{'type':'object','propertyNames':{'pattern':'^[a-z]+$','maxLength':3},'additionalProperties':{'type':'null'}}",
        "{'type':'object','propertyNames':{'enum':['x','y']},'properties':{'z':{}}}",
        "{'$ref':'#/$defs/tree','$defs':{'tree':{'type':'object','properties':{'value':{'type':'integer'},'children':{'type':'array','items':{'$ref':'#/$defs/tree'},'maxItems':2}},'required':['value'],'additionalProperties':false}}}",
        "{'type':'object','properties':{'next':{'anyOf':[{'$ref':'#'},{'type':'null'}]}},'required':['next'],'additionalProperties':false}",
        "{'$ref':'#/$defs/a%20b~1c','minLength':2,'$defs':{'a"
            + " b/c':{'type':'string','maxLength':4}}}",
        "{'type':'object','properties':{'q\\'\\\\':{},'':{}},'required':['q\\'\\\\','']}",
        "{'enum':[1,5,'a','abc',[1],{'a':1}],'anyOf':[{'type':'integer','minimum':3},{'type':'string','maxLength':2},{'type':'object','required':['b']}]}",
        "{}");
  }

  @ParameterizedTest
  @MethodSource("schemas")
  void walks_endInValidDocuments(String schema) throws Exception {
    assertThat(validate(schema, 150, 120, 1)).isGreaterThan(2);
  }

  /** Documents that are fine must be possible, as they are commonly written. */
  @ParameterizedTest
  @MethodSource("documents")
  void validDocuments_arePossible(String one, String other, boolean possible) throws Exception {
    String schema = Vocabularies.unquoted(one);
    String document = Vocabularies.unquoted(other);
    assertThat(validator(schema).validate(MAPPER.readTree(document)).isEmpty()).isEqualTo(possible);
    for (String text : List.of(document, MAPPER.readTree(document).toString(), pretty(document))) {
      Grammar grammar = Vocabularies.schema(schema, TOKENS);
      Frames end =
          grammar.after(grammar.first(), text.getBytes(java.nio.charset.StandardCharsets.UTF_8));
      assertThat(end.bottom).as("%s by %s", text, schema).isEqualTo(possible);
    }
  }

  private static String pretty(String document) throws Exception {
    return MAPPER
        .writer(
            new com.fasterxml.jackson.core.util.DefaultPrettyPrinter()
                .withSeparators(
                    com.fasterxml.jackson.core.util.Separators.createDefaultInstance()
                        .withObjectFieldValueSpacing(
                            com.fasterxml.jackson.core.util.Separators.Spacing.AFTER)
                        .withArrayEmptySeparator("")
                        .withObjectEmptySeparator("")))
        .writeValueAsString(MAPPER.readTree(document));
  }

  static List<Object[]> documents() {
    String person =
        "{'type':'object','properties':{'name':{'type':'string'},'age':{'type':'integer','minimum':0,'maximum':150}},'required':['name']}";
    String discriminated =
        "{'oneOf':[{'properties':{'k':{'const':'a'}},'required':['k'],'type':'object'},{'properties':{'k':{'const':'b'}},'required':['k'],'type':'object'}]}";
    return List.of(
        new Object[] {person, "{'name': 'Zo\\u00eb 😀\\n', 'age': 41}", true},
        new Object[] {person, "{'name': 'x', 'age': 151}", false},
        new Object[] {person, "{'name': 'x', 'extra': {'deep': [1, [], {}]}}", true},
        new Object[] {person, "{'age': 3}", false},
        new Object[] {discriminated, "{'k': 'b', 'z': [1.5e-3]}", true},
        new Object[] {discriminated, "{'k': 'c'}", false},
        new Object[] {"{'type':'number','minimum':0.5}", "0.5", true},
        new Object[] {"{'type':'number','exclusiveMinimum':0.5}", "0.5", false},
        new Object[] {"{'type':'number','exclusiveMinimum':0.5}", "0.50001", true},
        new Object[] {"{'type':'number','maximum':-2}", "-2.0", true},
        new Object[] {"{'type':'number','maximum':-2}", "-1.999", false},
        new Object[] {"{'type':'integer','multipleOf':12}", "-144", true},
        new Object[] {"{'type':'integer','multipleOf':12}", "143", false},
        new Object[] {"{'type':'string','minLength':2,'maxLength':2}", "'😀é'", true},
        new Object[] {"{'type':'string','maxLength':1}", "'😀é'", false},
        new Object[] {"{'type':'string','format':'date'}", "'2024-02-29'", true},
        new Object[] {"{'type':'string','format':'date'}", "'2023-02-29'", false},
        new Object[] {"{'type':'string','format':'date'}", "'1900-02-29'", false},
        new Object[] {"{'type':'string','format':'ipv6'}", "'::ffff:1'", true},
        new Object[] {"{'type':'array','maxItems':0}", "[]", true},
        new Object[] {"{'type':'array','maxItems':0}", "[1]", false},
        new Object[] {
          "{'type':'array','items':{'type':'integer'},'minItems':20,'maxItems':21}",
          "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]",
          true
        },
        new Object[] {
          "{'type':'array','items':{'type':'integer'},'minItems':20,'maxItems':21}",
          "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]",
          false
        });
  }

  @Test
  void randomSchemas_giveValidDocuments() throws Exception {
    int compiled = 0;
    int whole = 0;
    for (int seed = 0; seed < 400; seed++) {
      String schema = schema(new Random(seed), 3);
      try {
        whole += validate(schema, 12, 80, 1_000L * seed);
        compiled++;
      } catch (GrammarException e) {
        assertThat(e.getMessage())
            .as("seed %d: %s", seed, schema)
            .matches("(?s).*(no value satisfies|exclude each other|only 0 and 1).*");
      }
    }
    assertThat(compiled).isGreaterThan(250);
    assertThat(whole).isGreaterThan(1_500);
  }

  /** A schema, one with few contradictions. */
  private static String schema(Random random, int depth) {
    String name = "'%c'".formatted("abcxyz".charAt(random.nextInt(6)));
    return switch (random.nextInt(depth == 0 ? 8 : 14)) {
      case 0 -> "{'type':'boolean'}";
      case 1 -> "{'type':['null','string'],'maxLength':" + random.nextInt(4) + "}";
      case 2 ->
          "{'type':'integer','minimum':%d,'maximum':%d}"
              .formatted(random.nextInt(100) - 50, random.nextInt(1_000));
      case 3 ->
          "{'type':'number','%s':%s}"
              .formatted(
                  List.of("minimum", "exclusiveMaximum", "multipleOf").get(random.nextInt(3)),
                  (random.nextInt(40) + 1) / 4.0);
      case 4 -> "{'enum':[1,'a',null,[2],{'b':true}]}";
      case 5 -> "{'type':'string','pattern':'%c+$'}".formatted("abc".charAt(random.nextInt(3)));
      case 6 -> "{'const':" + random.nextInt(5) + "}";
      case 7 -> random.nextInt(3) == 0 ? "true" : "{'type':'integer'}";
      case 8, 9 ->
          "{'type':'array','items':%s,'minItems':%d,'maxItems':%d}"
              .formatted(schema(random, depth - 1), random.nextInt(2), 1 + random.nextInt(3));
      case 10 ->
          "{'anyOf':[%s,%s]}".formatted(schema(random, depth - 1), schema(random, depth - 1));
      case 11 ->
          "{'%s':[%s,%s]}"
              .formatted(
                  random.nextBoolean() ? "oneOf" : "allOf",
                  schema(random, depth - 1),
                  schema(random, depth - 1));
      default ->
          "{'type':'object','properties':{%s:%s,'k':%s}%s%s%s}"
              .formatted(
                  name,
                  schema(random, depth - 1),
                  schema(random, depth - 1),
                  random.nextBoolean() ? ",'required':[" + name + "]" : "",
                  random.nextBoolean() ? ",'additionalProperties':false" : "",
                  random.nextInt(3) == 0
                      ? ",'%s':%d"
                          .formatted(
                              random.nextBoolean() ? "minProperties" : "maxProperties",
                              1 + random.nextInt(2))
                      : "");
    };
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = ';',
      quoteCharacter = '\0',
      value = {
        "{'type':'objekt'}; /type; objekt",
        "{'type':['string','string']}; /type; different",
        "{'properties':{'a':{'minimum':'5'}}}; /properties/a/minimum; expected a number",
        "{'properties':{'a/b':{'not':{}}}}; /properties/a~1b/not; not supported",
        "{'items':[{}]}; /items; prefixItems",
        "{'type':'array','uniqueItems':true}; /uniqueItems; leave it out",
        "{'type':'string','pattern':'(?=a)'}; /pattern; look-ahead",
        "{'type':'string','pattern':'(a'}; /pattern; character 1",
        "{'type':'string','format':'color'}; /format; expected one of date",
        "{'$ref':'#/$defs/x'}; /$ref; there is no",
        "{'$ref':'other.json'}; /$ref; expected # or #/",
        "{'$ref':'#'}; the schema; refers to itself",
        "{'allOf':[{'$ref':'#'}]}; the schema; refers to itself",
        "{'anyOf':[{'$ref':'#'},{'type':'null'}]}; the schema; refers to itself",
        "{'anyOf':[]}; /anyOf; at least one",
        "{'enum':[]}; /enum; at least one",
        "{'unevaluatedProperties':false}; /unevaluatedProperties; additionalProperties",
        "{'if':{}}; /if; anyOf",
        "{'schema':{},'strict':true}; /schema; the schema itself",
        "{'minLength':-1}; /minLength; expected a count",
        "{'minLength':1.5}; /minLength; expected a count",
        "{'type':'string','minLength':5,'maxLength':3}; minLength; over maxLength",
        "{'type':'integer','minimum':5,'maximum':3}; maximum; no number",
        "{'allOf':[{'type':'string'},{'type':'integer'}]}; /allOf/1/type; type",
        "{'const':1,'type':'string'}; /const; no value of it",
        "{'type':'object','required':['a'],'properties':{'a':false}}; /properties/a; false",
        "{'oneOf':[{'type':'integer'},{'type':'number'}]}; /oneOf; 0 and 1",
        "{'oneOf':[{'type':'object'},{'type':'object'}]}; /oneOf; exclude each other",
        "{'multipleOf':0}; /multipleOf; over 0",
        "{'minimum':1e999999999}; /minimum; expected a number",
        "{'type':'integer','multipleOf':100003}; /multipleOf; step",
        "{'a':1,'a':2}; line 1; uplicate",
        "{'type':; line 1; not valid JSON",
        "[]; the schema; expected a schema",
        "{'properties':{'a':5}}; /properties/a; expected a schema",
        "false; root; false allows nothing"
      })
  void refusals_sayWhereAndWhy(String schema, String where, String why) {
    assertThatThrownBy(() -> Vocabularies.schema(schema, TOKENS))
        .isInstanceOf(GrammarException.class)
        .hasMessageContaining(where)
        .hasMessageContaining(why);
  }

  @Test
  void infinite_isRefused() {
    assertThatThrownBy(
            () ->
                Vocabularies.schema(
                    "{'type':'object','properties':{'a':{'$ref':'#'}},'required':['a']}", TOKENS))
        .hasMessageContaining("no value satisfies");
  }

  @ParameterizedTest
  @Timeout(60)
  @ValueSource(ints = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14})
  void hostile_isAnsweredSoon(int kind) {
    StringBuilder schema = new StringBuilder();
    switch (kind) {
      case 0 -> schema.append("{'type':'array','items':".repeat(5_000));
      case 1 -> {
        // 2^60 combinations.
        schema.append("{'allOf':[");
        for (int i = 0; i < 60; i++) {
          schema.append(i == 0 ? "" : ",").append("{'anyOf':[{'minimum':1},{'maximum':9}]}");
        }
        schema.append("]}");
      }
      case 2 -> {
        schema.append("{'type':'object','maxProperties':400,'properties':{");
        for (int i = 0; i < 1_000; i++) {
          schema.append(i == 0 ? "" : ",").append("'p%d':{}".formatted(i));
        }
        schema.append("}}");
      }
      case 3 -> {
        schema.append("{'oneOf':[");
        for (int i = 0; i < 600; i++) {
          schema.append(i == 0 ? "" : ",").append("{'const':%d}".formatted(i));
        }
        schema.append("]}");
      }
      case 4 -> schema.append("{'type':'string','pattern':'(a|b)*a(a|b){40}','maxLength':5000}");
      case 5 -> schema.append("{'type':'string','minLength':1000000000}");
      case 6 -> {
        schema.append("{'$ref':'#/$defs/d0','$defs':{");
        for (int i = 0; i < 5_000; i++) {
          schema.append("'d%d':{'$ref':'#/$defs/d%d'},".formatted(i, i + 1));
        }
        schema.append("'d5000':{}}}");
      }
      case 7 -> {
        schema.append("{'patternProperties':{");
        for (int i = 0; i < 8; i++) {
          schema.append(i == 0 ? "" : ",").append("'a.{%d}b':{}".formatted(i + 3));
        }
        schema.append("}}");
      }
      // Copies of what is known, at each of many choices.
      case 8 -> schema.append("{'allOf':[" + "{'anyOf':[{}]},".repeat(5_000) + "{}]}");
      // Pointers that are far longer than the schema.
      case 9 ->
          schema.append(
              "{'properties':{'%s':{'allOf':[%s{}]}}}"
                  .formatted("k".repeat(250_000), "{},".repeat(80_000)));
      case 10 -> {
        schema.append("{'uniqueItems':true,'const':[0");
        for (int i = 1; i < 75_000; i++) {
          schema.append(",").append(i);
        }
        schema.append("]}");
      }
      case 11 -> schema.append("{'pattern':'(?i)" + "\\\\D".repeat(8_000) + "'}");
      case 12 -> {
        schema.append("{'allOf':[" + "{},".repeat(40_000) + "{}],'properties':{'p':{}");
        for (int i = 0; i < 25_000; i++) {
          schema.append(",'p%d':{}".formatted(i));
        }
        schema.append("}}");
      }
      case 13 -> schema.append("{'$ref':'#" + "/a".repeat(250_000) + "'}");
      default -> schema.append("{'x':'").append("y".repeat(1 << 20)).append("'}");
    }
    try {
      Vocabularies.schema(schema.toString(), TOKENS);
    } catch (GrammarException e) {
      assertThat(e.getMessage()).isNotEmpty();
    }
  }

  @Test
  void manyAlternativesThatBeginAlike_areTold() throws Exception {
    StringBuilder schema = new StringBuilder("{'anyOf':[");
    for (int i = 0; i < 300; i++) {
      schema
          .append(i == 0 ? "" : ",")
          .append(
              ("{'type':'object','properties':{'name':{'const':'tool%d'},'arguments':{'type':'object','properties':{'p%d':{'type':'integer'}},'required':['p%d'],'additionalProperties':false}},'required':['name','arguments'],'additionalProperties':false}")
                  .formatted(i, i, i));
    }
    schema.append("]}");
    assertThat(validate(schema.toString(), 20, 100, 5)).isGreaterThan(5);
  }

  @Test
  void closed_objectsHaveNoOtherProperties() throws Exception {
    String schema = "{'type':'object','properties':{'a':{'type':'null'}}}";
    Grammar closed =
        Vocabularies.compile(
            new Constraint.Schema(Vocabularies.unquoted(schema), true, true), TOKENS);
    for (int seed = 0; seed < 50; seed++) {
      assertThat(Vocabularies.walk(closed, TOKENS, new Random(seed), -1).text())
          .isIn("{}", "{\"a\":null}");
    }
  }

  @Test
  void json_isAlwaysJson() throws Exception {
    Grammar object = Vocabularies.compile(new Constraint.Json(true, false), TOKENS);
    Grammar value = Vocabularies.compile(new Constraint.Json(false, true), TOKENS);
    int whole = 0;
    for (int seed = 0; seed < 300; seed++) {
      Vocabularies.Walk walk = Vocabularies.walk(object, TOKENS, new Random(seed), 60);
      if (walk.whole()) {
        whole++;
        assertThat(MAPPER.readTree(walk.text()).isObject()).as(walk.text()).isTrue();
      }
      walk = Vocabularies.walk(value, TOKENS, new Random(seed), 60);
      if (walk.whole()) {
        whole++;
        assertThat(MAPPER.readTree(walk.text()).isMissingNode()).as(walk.text()).isFalse();
      }
    }
    assertThat(whole).isGreaterThan(50);
  }

  @Test
  void thousandsOfNames_areTaken() throws Exception {
    Random random = new Random(7);
    Set<String> names = new TreeSet<>();
    while (names.size() < 10_000) {
      names.add(Integer.toString(random.nextInt(100_000_000), 26));
    }
    String schema = "{'enum':['%s',1.5]}".formatted(String.join("','", names));
    Grammar grammar = Vocabularies.schema(schema, TOKENS);
    for (int seed = 0; seed < 50; seed++) {
      String text = Vocabularies.walk(grammar, TOKENS, new Random(seed), -1).text();
      assertThat(text.equals("1.5") || names.contains(text.replace("\"", ""))).as(text).isTrue();
    }
  }

  @Test
  void enumBesideEnum_leavesWhatBothList() throws Exception {
    // Equal by value: 1.5 and 1.50, and objects in any order.
    String schema =
        "{'allOf':[{'enum':[1.5,'a',{'x':1,'y':[2]},[3]]},"
            + "{'enum':[1.50,'b',{'y':[2.0],'x':1},[4]]}]}";
    Grammar grammar = Vocabularies.schema(schema, TOKENS);
    Set<String> texts = new TreeSet<>();
    for (int seed = 0; seed < 200; seed++) {
      String text = Vocabularies.walk(grammar, TOKENS, new Random(seed), -1).text();
      texts.add(MAPPER.readTree(text).toString());
    }
    assertThat(texts).containsExactlyInAnyOrder("1.5", "{\"x\":1,\"y\":[2]}");
  }
}
