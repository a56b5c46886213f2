import {http, type Request, type Response} from '@google-cloud/functions-framework';

interface Person {
  name?: string;
}

/** Answers "Hello NAME!" with the name from the JSON body, else from the query, else "World". */
http('helloHttp', (req: Request, res: Response) => {
  const person: Person | undefined = req.body;
  const name = person?.name ?? req.query.name ?? 'World';
  res.type('text/plain').send(`Hello ${name}!`);
});
