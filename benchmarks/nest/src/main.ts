// The application, without logs: node dist/main.js '{"host", "port", "secret", "options"}' (the store, the JWT secret, the jobs' options).
// Says "ready <url>", ends with its standard input.
import 'reflect-metadata';
import { createSecretKey } from 'node:crypto';
import { BullModule } from '@nestjs/bullmq';
import { Module, ValidationPipe } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { JwtModule } from '@nestjs/jwt';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { JobsController } from './jobs.controller.js';

const { host, port, secret, options } = JSON.parse(process.argv[2]!);
const key = createSecretKey(Buffer.from(secret)) as unknown as Buffer;

@Module({
  imports: [
    BullModule.forRoot({ connection: { host, port } }),
    BullModule.registerQueue({ name: 'document-processing', defaultJobOptions: options }),
    // As a key object: a text is first tried as a public key with each token, which takes a third of all the time.
    JwtModule.register({ secret: key, verifyOptions: { algorithms: ['HS256'] } }),
  ],
  controllers: [JobsController],
})
class AppModule {}

const app = await NestFactory.create<NestFastifyApplication>(AppModule, new FastifyAdapter(), { logger: ['error'] });
app.useGlobalPipes(new ValidationPipe({ whitelist: true }));
await app.listen(0, '127.0.0.1');
console.log(`ready ${await app.getUrl()}`);
process.stdin.resume().on('end', () => app.close().then(() => process.exit(0)));
