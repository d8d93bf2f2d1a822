// validation.ts - compiles the schemas of bodies and queries when the first request needs them: compiling all of them
// would be a fifth of the time that a start takes.
//
// Bodies are taken as they are: nothing is coerced, nothing unknown is dropped. Query parameters are text, so that they
// are coerced to their types, and those that are left out get their defaults. Parameters of paths and headers are read
// by the routes: what a path can't name does not exist (404), and a header that does not parse has a problem of its own.
import { Ajv, type Options, type ValidateFunction } from "ajv";
import type { FastifyInstance, FastifySchema, FastifySchemaCompiler } from "fastify";

type FastifyValidator = ReturnType<FastifySchemaCompiler<FastifySchema>>;

type Schema = Readonly<Record<string, unknown>>;

// Formats are for readers of the document: no body or query has a member of one.
const common: Options = {
  allErrors: true,
  removeAdditional: false,
  strict: false,
  validateFormats: false,
};

/** What Fastify takes for "nothing to check", which costs a request less than a function that says so. */
export const unchecked = undefined as unknown as FastifyValidator;

/** The app's own compiler but for bodies that come as bytes: a schema of theirs is for the document. */
export function exceptBodies(app: FastifyInstance): FastifySchemaCompiler<FastifySchema> {
  return (part) => (part.httpPart === "body" ? unchecked : app.validatorCompiler!(part));
}

export function lazyValidators(components: readonly Schema[]): FastifySchemaCompiler<FastifySchema> {
  const forBodies = lazily(() => ajvOf({ ...common, coerceTypes: false }, components));
  const forQueries = lazily(() => ajvOf({ ...common, coerceTypes: true, useDefaults: true }, []));
  return ({ schema, httpPart }) => {
    if (httpPart !== "body" && httpPart !== "querystring") return unchecked;
    const compiled = lazily(() => (httpPart === "body" ? forBodies() : forQueries()).compile(schema as object));
    // Fastify reads the errors off the function that it called.
    const validate = (data: unknown): boolean => {
      const valid = compiled();
      if (valid(data)) return true;
      (validate as Partial<ValidateFunction>).errors = valid.errors ?? null;
      return false;
    };
    return validate;
  };
}

function ajvOf(options: Options, components: readonly Schema[]): Ajv {
  const ajv = new Ajv(options);
  for (const component of components) ajv.addSchema(component as object);
  return ajv;
}

function lazily<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => {
    made ??= make();
    return made;
  };
}
